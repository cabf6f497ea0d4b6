"""`ckptctl watch`: a job that others started is saved when it is due, and otherwise left as it is."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs, wait_for
from support.jobs import state
from support.supervised import Supervised, log_of, trains

pytestmark = pytest.mark.requires_criu

STEPS = 120


@pytest.fixture
def job(start_job: Jobs, supervise: Supervised) -> Job:
    """A training that was started by hand, its output appended to a file; it waits in its third step for leave."""
    supervise.allow(3)
    started = start_job(trains(STEPS, 0.02), append=True, cwd=supervise.folder)
    started.wait_for_lines(3)
    return started


def test_a_job_is_saved_when_it_is_due_and_its_end_ends_the_watch(job: Job, supervise: Supervised) -> None:
    watch = supervise(
        *("--pid", str(job.pid), "--every", "20steps", "--keep-last", "2", "--images", "directory"),
        command="watch",
        until=3,
    )
    supervise.save_each(watch, 3, every=20)
    supervise.allow(None)
    watch.check(0)
    assert f"The job {job.pid} is watched" in watch.said
    assert job.lines() == log_of(STEPS)
    assert list(supervise.snapshots) == watch.saved[-2:]
    images = [supervise.run.snapshot(name).images for name in supervise.snapshots]
    assert all(list(folder.glob("pages-*.img")) for folder in images), "CRIU wrote its files itself"
    assert supervise.record.state == "gone"
    assert supervise.record.exit_status is None
    # What it writes is nobody else's business.
    assert watch.shown == []
    supervise.require_nothing_left()


def test_how_it_runs_is_not_touched(job: Job, supervise: Supervised) -> None:
    before = facts(job)
    watch = supervise("--pid", str(job.pid), "--every", "10steps", command="watch", until=3)
    supervise.save_each(watch, 2)
    assert facts(job) == before


def facts(job: Job) -> tuple[Path, list[Path], int, str]:
    """Its folder, what it has open, its session and its parent."""
    entry = Path("/proc", str(job.pid))
    opened = sorted(link.readlink() for link in (entry / "fd").iterdir())
    return (entry / "cwd").readlink(), opened, os.getsid(job.pid), (entry / "stat").read_text().split()[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_the_watch_and_not_the_job(number: signal.Signals, job: Job, supervise: Supervised) -> None:
    watch = supervise("--pid", str(job.pid), "--every", "30m", command="watch", until=3)
    watch.wait_said("is watched")
    watch.signal(number)
    watch.check(0)
    assert f"the job runs on (pid {job.pid})" in watch.said
    assert supervise.record.state == "left"
    assert state(job.pid) in "RS"
    assert not supervise.snapshots


def test_usr1_asks_for_a_snapshot_and_term_may_end_the_job(
    job: Job, supervise: Supervised, ckptctl: CommandLine
) -> None:
    options = ("--pid", str(job.pid), "--on-signal", "TERM=dump-and-stop")
    watch = supervise(*options, command="watch", until=3)
    watch.wait_said("is watched")
    watch.signal(signal.SIGUSR1)
    watch.wait_saved(1)
    assert state(job.pid) in "RS"
    watch.signal(signal.SIGTERM)
    watch.check(75)
    job.wait_gone()
    assert len(supervise.snapshots) == 2
    supervise.allow(None)
    ckptctl("restore", "gpt/latest").check()
    wait_for(lambda: len(job.lines()) == STEPS, 60, "the end of the restored job")
    assert job.lines() == log_of(STEPS)


def test_the_next_watch_goes_on_where_a_killed_one_was(job: Job, supervise: Supervised) -> None:
    first = supervise("--pid", str(job.pid), "--every", "40steps", command="watch", until=3)
    supervise.save_each(first, 1, every=40)
    first.signal(signal.SIGKILL)
    first.wait()
    second = supervise("--pid", str(job.pid), "--every", "40steps", command="watch", until=70)
    second.wait_said("is watched")
    job.wait_for_lines(70)
    supervise.save_at(second, (80,))
    # Not one at once because the step is beyond 40.
    assert supervise.steps(supervise.snapshots) == [40, 80]
    supervise.allow(None)
    second.check(0)
    assert job.lines() == log_of(STEPS)


def test_a_process_that_is_not_there(supervise: Supervised) -> None:
    assert supervise("--pid", "4194000", command="watch").wait() == 6


def test_only_one_watches(job: Job, supervise: Supervised) -> None:
    first = supervise("--pid", str(job.pid), command="watch", until=3)
    first.wait_said("is watched")
    assert supervise("--pid", str(job.pid), command="watch", until=3).wait() == 11
    assert first.process.poll() is None


def test_a_run_of_a_job_that_was_only_watched_starts_from_its_snapshots(job: Job, supervise: Supervised) -> None:
    """The snapshots of a run are its snapshots, whoever took them."""
    watch = supervise("--pid", str(job.pid), "--every", "20steps", command="watch", until=3)
    [saved] = supervise.save_each(watch, 1, every=20)
    watch.signal(signal.SIGTERM)
    watch.check(0)
    job.kill()
    job.wait_status()
    ran = supervise(job=[sys.executable, "-c", "print('another job')"])
    ran.wait_said("goes on from")
    wait_for(lambda: len(job.lines()) == STEPS, 60, "the end of the job")
    assert job.lines() == log_of(STEPS)
    ran.wait()
    assert f"goes on from {saved}" in ran.said


def test_what_stands_in_the_way_is_said_at_once(start_job: Jobs, supervise: Supervised) -> None:
    """Not in half an hour, when the first snapshot is due."""
    ring = "import ctypes, time; ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)); time.sleep(60)"
    job = start_job([sys.executable, "-c", ring])
    wait_for(lambda: "io_uring" in opened(job), 30, "its ring")
    watch = supervise("--pid", str(job.pid), "--every", "30m", command="watch")
    watch.wait_said("As it is now, the job cannot be saved: ")
    assert "io_uring" in watch.said
    assert watch.process.poll() is None


def opened(job: Job) -> str:
    found = []
    for link in Path(f"/proc/{job.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(link.readlink()))
    return " ".join(found)


def test_how_an_earlier_job_of_the_run_ended_says_nothing_of_this_one(job: Job, supervise: Supervised) -> None:
    supervise(job=["sh", "-c", "exit 0"]).check(0)
    assert supervise.run.job_exit.exists()
    watch = supervise("--pid", str(job.pid), command="watch")
    watch.wait_said("is watched")
    job.kill()
    watch.check(0)
    assert supervise.record.state == "gone"


def test_run_takes_over_what_was_watched_or_brought_back_by_hand_and_never_makes_two_of_it(
    start_job: Jobs, supervise: Supervised, ckptctl: CommandLine
) -> None:
    job = start_job(trains(6000, 0.1), append=True)
    job.wait_for_lines(3)
    watch = supervise("--pid", str(job.pid), "--on-signal", "USR1=dump", command="watch")
    watch.wait_said("is watched")
    watch.signal(signal.SIGUSR1)
    watch.wait_saved(1)
    watch.signal(signal.SIGKILL)
    watch.wait()
    again = supervise(job=["false"])
    again.wait_said(f"still runs (pid {job.pid}): taken over")
    again.signal(signal.SIGTERM)
    again.check(75)
    job.wait_gone()

    # One that this ckptctl knows nothing of is not brought back once more beside itself.
    ckptctl("restore", "gpt/latest").check()
    assert supervise(job=["false"]).wait() == 11
    assert len([pid for pid in job.processes() if state(pid) != "Z"]) == 1
    assert log_of(6000)[: len(job.lines())] == job.lines()

    # One that ckptctl run has restored itself is found again when ckptctl was killed.
    job.kill()
    third = supervise(job=["false"])
    third.wait_said("goes on from")
    wait_for(lambda: supervise.record.state == "running", 10, "the record")
    third.signal(signal.SIGKILL)
    third.wait()
    fourth = supervise(job=["false"])
    fourth.wait_said(f"still runs (pid {job.pid}): taken over")
    assert len([pid for pid in job.processes() if state(pid) != "Z"]) == 1
