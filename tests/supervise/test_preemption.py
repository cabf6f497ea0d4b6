"""What signals, notices and a file ask of a supervised job, and what ckptctl ends with."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from support import CommandLine, wait_for
from support.jobs import state
from support.supervised import Supervised, log_of, trains

pytestmark = pytest.mark.requires_criu

STEPS = 80
JOB = trains(STEPS, 0.02)
# Says which signals it gets, and ends with status 3 at SIGTERM.
ANSWERS = """
import signal, sys, time
def say(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(3)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, say)
for step in range(1000):
    print(f"step={step}", flush=True)
    time.sleep(0.05)
"""
ANSWERING = (sys.executable, "-c", ANSWERS)
# Ends at SIGTERM with the status that its folder says.
OBLIGING = ("sh", "-c", "trap 'exit $(cat obliging)' TERM; while :; do sleep 0.05; done")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_ends_the_job_and_the_same_command_goes_on(
    number: signal.Signals, supervise: Supervised
) -> None:
    first = supervise(job=JOB, until=10)
    supervise.wait_step(10)
    first.signal(number)
    first.check(75)
    assert "a last snapshot is taken" in first.said
    assert "the same command goes on with it" in first.said
    assert supervise.record.state == "saved"
    supervise.require_nothing_left()
    stood = supervise.log()

    second = supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)
    assert "rolled" not in second.said
    # Nothing was written behind the last snapshot.
    assert second.shown == log_of(STEPS)[len(stood) :]


@pytest.mark.parametrize(
    ("reaction", "status", "snapshots", "lives"),
    [("dump", None, 1, True), ("stop", 75, 0, False), ("leave", 0, 0, True), ("ignore", None, 0, True),
     ("pass", None, 0, True), ("dump-and-stop", 75, 1, False)],
)  # fmt: skip
def test_each_reaction(reaction: str, status: int | None, snapshots: int, lives: bool, supervise: Supervised) -> None:
    first = supervise("--on-signal", f"USR1={reaction}", job=ANSWERING)
    supervise.wait_log(5)
    first.signal(signal.SIGUSR1)
    if status is None:
        if snapshots:
            first.wait_saved(snapshots)
        supervise.wait_log(len(supervise.log()) + 8)
        assert first.process.poll() is None
    else:
        first.check(status)
    assert len(supervise.snapshots) == snapshots
    assert bool([pid for pid in supervise.processes() if pid != first.process.pid]) == lives
    assert ("got SIGUSR1" in supervise.log()) == (reaction == "pass")
    assert ("got SIGTERM" in supervise.log()) == (reaction == "stop")


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGQUIT])
def test_other_signals_are_passed_on_to_the_job(number: signal.Signals, supervise: Supervised) -> None:
    first = supervise(job=ANSWERING)
    supervise.wait_log(5)
    first.signal(number)
    wait_for(lambda: f"got {number.name}" in supervise.log(), 10, "the signal in the job")
    assert first.process.poll() is None


def test_a_terminal_that_is_closed_ends_nothing(supervise: Supervised) -> None:
    first = supervise(job=JOB, until=5)
    supervise.wait_log(5)
    first.signal(signal.SIGHUP)
    supervise.allow(None)
    first.check(0)
    assert supervise.log() == log_of(STEPS)


def test_more_signals_do_not_cut_off_the_last_snapshot(supervise: Supervised) -> None:
    # The hook holds the snapshot up for as long as the signals come.
    first = supervise("--hook-before", "sleep 1", job=JOB, until=10)
    supervise.wait_step(10)
    for _ in range(12):
        if first.process.poll() is None:
            first.signal(signal.SIGTERM)
        time.sleep(0.1)
    first.check(75)
    assert len(supervise.snapshots) == 1
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_hook_of_another_snapshot_does_not_hold_up_the_last(supervise: Supervised) -> None:
    hook = """sh -c 'echo began; test -n "$CKPTCTL_LAST" || sleep 1000'"""
    first = supervise("--first-after", "100ms", "--hook-before", hook, "--hook-timeout", "1h", job=JOB, until=40)
    wait_for(lambda: supervise.run.hooks_log.exists() and "\nbegan" in supervise.run.hooks_log.read_text(), 30, "it")
    first.signal(signal.SIGTERM)
    first.check(75)
    assert "was ended, because something more urgent came" in first.said
    assert len(supervise.snapshots) == 1
    assert supervise.record.failures_count == 0
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_job_without_a_snapshot_is_not_ended_if_it_cannot_be_saved(supervise: Supervised) -> None:
    first = supervise("--criu-option", "--no-such-option", job=JOB, until=5)
    supervise.wait_step(5)
    first.signal(signal.SIGTERM)
    first.check(7)
    assert "The job has no snapshot, so it is not ended" in first.said
    assert supervise.record.state == "left"
    # It runs on, and is taken over.
    second = supervise(job=JOB, until=5)
    second.wait_said("taken over")
    supervise.allow(None)
    second.check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_job_that_cannot_be_saved_now_is_ended_where_it_has_a_snapshot(supervise: Supervised) -> None:
    first = supervise("--every", "5steps", job=JOB)
    [newest] = supervise.save_each(first, 1, every=5)
    first.signal(signal.SIGKILL)
    first.wait()
    second = supervise("--criu-option", "--no-such-option", job=JOB, until=5)
    second.wait_said("taken over")
    second.signal(signal.SIGTERM)
    second.check(75)
    assert f"it goes on from step {supervise.progress(newest).step}, and " in second.said
    alerts = {alert.code: alert.text for alert in supervise.record.alerts}
    assert "W_NOT_SAVED" in alerts
    assert not [text for text in alerts.values() if "runs on" in text], "it has ended"
    assert supervise.snapshots[-1] == newest
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_snapshot_that_takes_longer_than_what_is_left_is_not_begun(supervise: Supervised) -> None:
    # The hooks belong to what a snapshot takes.
    options = ("--hook-before", "sleep 2", "--first-after", "500ms", "--grace", "3s")
    first = supervise(*options, job=JOB, until=40)
    [saved] = first.wait_saved(1)
    first.signal(signal.SIGTERM)
    first.check(75)
    assert "No last snapshot is begun: " in first.said
    assert f"it goes on from step {supervise.progress(saved).step}, and " in first.said
    assert list(supervise.snapshots) == [saved]
    assert supervise.record.state == "stopped"
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_job_that_pays_no_heed_is_killed_when_the_time_is_over(supervise: Supervised) -> None:
    (supervise.folder / "ignore").touch()
    first = supervise("--grace", "1s", "--on-signal", "TERM=stop", job=JOB, until=5)
    supervise.wait_step(5)
    first.signal(signal.SIGTERM)
    first.check(75)
    assert supervise.record.exit_status in (None, -signal.SIGKILL)
    supervise.require_nothing_left()


def test_a_job_that_ends_well_when_it_is_stopped_has_not_done_its_work(supervise: Supervised) -> None:
    job = ("sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
    first = supervise("--on-signal", "TERM=stop", job=job)
    supervise.wait_log(1)
    first.signal(signal.SIGTERM)
    first.check(75)
    second = supervise(job=job)
    second.wait_said("starts from the beginning")


def test_a_signal_while_the_job_is_being_restored_stops_that(supervise: Supervised, ckptctl: CommandLine) -> None:
    first = supervise("--every", "5steps", job=JOB)
    supervise.save_each(first, 1, every=5)
    supervise.kill_all()
    saved = supervise.snapshots
    for _ in range(3):
        again = supervise(job=JOB, until=20)
        # The journal is opened before anything of the restore is done.
        wait_for(lambda: [*ckptctl.state.glob("journal/*.json")], 30, "a restore")
        again.signal(signal.SIGTERM)
        # It is taken back, or done, and then there is a last snapshot.
        again.check(75)
        assert "Stopped by SIGTERM." in again.said or "a last snapshot is taken" in again.said
        supervise.require_nothing_left()
    assert set(saved) <= set(supervise.snapshots)
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_notice_in_a_file_ends_the_job_in_time(supervise: Supervised, tmp_path: Path) -> None:
    notice = tmp_path / "notice"
    first = supervise("--on-notice", f"file:{notice}", job=JOB, until=5)
    supervise.wait_step(5)
    notice.write_text("60s\nThis machine is taken away.\n")
    first.check(75)
    assert "Notice (file): This machine is taken away." in first.said
    assert len(supervise.snapshots) == 1
    notice.unlink()
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(STEPS)


def test_a_notice_of_what_is_hours_away_waits(supervise: Supervised, tmp_path: Path) -> None:
    notice = tmp_path / "notice"
    notice.write_text("5h\nMaintenance.\n")
    first = supervise("--on-notice", f"file:{notice}", "--grace", "30s", job=trains(1000, 0.05))
    supervise.wait_step(60)
    assert first.process.poll() is None
    notice.write_text("20s\nMaintenance.\n")
    first.check(75)
    assert len(supervise.snapshots) == 1


def test_a_file_asks_for_a_snapshot(supervise: Supervised) -> None:
    first = supervise(job=JOB, until=5)
    supervise.wait_step(5)
    supervise.run.snapshot_request.touch()
    first.wait_saved(1)
    assert not supervise.run.snapshot_request.exists()
    supervise.allow(None)
    first.check(0)
    assert len(supervise.snapshots) == 1


def test_a_folder_in_its_place_asks_once(supervise: Supervised) -> None:
    first = supervise(job=JOB, until=5)
    supervise.wait_step(5)
    supervise.run.snapshot_request.mkdir()
    first.wait_saved(1)
    supervise.allow(None)
    first.check(0)
    assert len(supervise.snapshots) == 1
    assert "cannot be removed" in first.said


def test_ctrl_c_in_a_terminal_reaches_ckptctl_alone(supervise: Supervised) -> None:
    """The whole foreground group gets SIGINT from a terminal; the job and criu are in groups of their own."""
    first = supervise(job=ANSWERING)
    supervise.wait_log(5)
    os.killpg(first.process.pid, signal.SIGINT)
    first.check(75)
    assert "got SIGINT" not in supervise.log()
    assert len(supervise.snapshots) == 1
    assert not [pid for pid in supervise.processes() if state(pid) != "Z"]


@pytest.mark.parametrize("status", [0, 1])
def test_a_job_that_is_asked_to_end_by_others_too_has_not_done_its_work(status: int, supervise: Supervised) -> None:
    """A batch system signals every process: the job may be faster than its last snapshot."""
    (supervise.folder / "obliging").write_text(str(status))
    first = supervise("--first-after", "500ms", job=OBLIGING)
    first.wait_saved(1)
    pids = (first.process.pid, supervise.keeper(), supervise.job())
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    first.check(75)
    assert supervise.record.state in ("stopped", "saved")
    assert supervise.record.deaths == ()
    second = supervise(job=OBLIGING)
    second.wait_said("goes on from")


def test_a_snapshot_from_before_a_new_start_does_not_count(supervise: Supervised) -> None:
    first = supervise("--every", "5steps", job=trains(30, 0.01))
    supervise.save_each(first, 1, every=5)
    supervise.allow(None)
    first.check(0)
    again = supervise("--no-resume", "--criu-option", "--no-such-option", job=JOB, until=20)
    again.wait_said("starts from the beginning")
    supervise.wait_log(40)
    again.signal(signal.SIGTERM)
    again.check(7)
    assert "The job has no snapshot, so it is not ended" in again.said
