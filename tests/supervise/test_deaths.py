"""Jobs that die again and again, and hooks and disks that fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ckptctl.app import opened
from ckptctl.events import Silence
from ckptctl.snapshot.dump import dump
from ckptctl.snapshot.dump_request import DumpRequest, StoreTarget
from support import CommandLine, wait_for
from support.jobs import state
from support.supervised import Supervised, log_of, trains
from support.tmpfs import fill, tmpfs
from support.waiting import lines

pytestmark = pytest.mark.requires_criu

JOB = trains(60, 0.02)


def test_three_deaths_at_one_step_end_a_run(supervise: Supervised) -> None:
    (supervise.folder / "die-at-30").touch()
    supervise.save_each(supervise("--every", "5steps", job=JOB), 1, every=5)
    supervise.kill_all()
    for status in (134, 134, 93):
        ran = supervise("--every", "5steps", job=JOB).check(status)
    assert "That was the 3rd time in a row at step 30: starting it again will not help." in ran.said
    assert [death.step for death in supervise.record.deaths] == []
    assert any(alert.code == "W_CRASH_LOOP" for alert in supervise.record.alerts)
    # Whoever starts it once more has mended it.
    (supervise.folder / "die-at-30").unlink()
    supervise("--every", "5steps", job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_deaths_at_different_steps_do_not_end_it(supervise: Supervised) -> None:
    supervise.save_each(supervise("--every", "5steps", job=JOB), 1, every=5)
    supervise.kill_all()
    for step in (25, 35, 45, 50):
        (supervise.folder / f"die-at-{step}").touch()
        supervise("--every", "5steps", job=JOB).check(134)
        (supervise.folder / f"die-at-{step}").unlink()
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_a_job_that_dies_before_it_says_anything_is_not_started_for_ever(supervise: Supervised) -> None:
    ran = supervise("--restarts", "10", job=["sh", "-c", "exit 7"]).check(93)
    assert ran.said.count("starts from the beginning") == 3
    assert "That was the 3rd time in a row: starting it again will not help." in ran.said


def test_restarts_are_no_more_than_were_asked_for(supervise: Supervised) -> None:
    ran = supervise("--restarts", "1", job=["sh", "-c", "exit 7"]).check(7)
    assert ran.said.count("starts from the beginning") == 2


def test_a_hook_that_fails_prevents_a_snapshot_but_never_the_last(supervise: Supervised) -> None:
    first = supervise("--every", "5steps", "--hook-before", "false", job=JOB)
    supervise.be_seen()
    supervise.allow(30)
    first.wait_said("The hook false (before) failed with exit status 1.")
    supervise.wait_step(30)
    assert not supervise.snapshots
    first.signal(signal.SIGTERM)
    first.check(75)
    assert len(supervise.snapshots) == 1
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_hooks_are_told_what_there_is_to_know(supervise: Supervised, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f'echo "$CKPTCTL_EVENT $CKPTCTL_RUN $CKPTCTL_ID $CKPTCTL_ERROR_CODE" >> {told}'
    hooks = [word for event in ("before", "after", "failure") for word in (f"--hook-{event}", f"sh -c '{script}'")]
    first = supervise("--first-after", "500ms", *hooks, job=trains(2000, 0.05))
    [saved] = first.wait_saved(1)
    wait_for(lambda: told.read_text().count("\n") == 2, 10, "two hooks")
    assert told.read_text() == f"before gpt  \nafter gpt {saved} \n"
    first.signal(signal.SIGKILL)
    first.wait()
    second = supervise("--criu-option", "--no-such-option", *hooks)
    second.wait_said("taken over")
    supervise.run.snapshot_request.touch()
    wait_for(lambda: "failure gpt" in told.read_text(), 30, "the hook for failures")
    assert told.read_text().splitlines()[-1].startswith("failure gpt  E_")


def test_a_snapshot_that_fails_is_told_and_the_job_goes_on(supervise: Supervised) -> None:
    ran = supervise("--every", "10steps", "--criu-option", "--no-such-option", job=JOB)
    supervise.be_seen()
    supervise.allow(10)
    ran.wait_said("criu could not dump the job")
    supervise.allow(None)
    ran.check(0)
    assert supervise.log() == log_of(60)
    # It is tried again after a while, not at every look.
    assert "The next one is tried in 1m" in ran.said
    assert ran.said.count("criu could not dump the job") == 1
    assert supervise.record.failures_count == 1
    supervise.require_nothing_left()


def test_a_job_that_others_save_and_end_was_not_killed(supervise: Supervised, ckptctl: CommandLine) -> None:
    first = supervise(job=JOB, until=10)
    supervise.wait_step(10)
    # As one does that began just before the supervisor did; one that comes later is refused.
    with opened({"store": ckptctl.store, "state": ckptctl.state}, Silence()) as app:
        dump(DumpRequest(supervise.keeper(), StoreTarget(app.store(), "gpt")), app.services)
    first.check(75)
    assert f"Another ckptctl has saved the job and ended it: {supervise.snapshots[-1]}." in first.said
    assert supervise.record.state == "saved"
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_a_full_disk_ends_no_supervision(supervise: Supervised, ckptctl: CommandLine) -> None:
    silent = ("sh", "-c", "while [ ! -e end ]; do sleep 0.1; done; exit 3")
    with tmpfs(ckptctl.store, "size=200m"):
        ran = supervise("--first-after", "500ms", job=silent)
        [saved] = ran.wait_saved(1)
        fill(ckptctl.store)
        supervise.run.snapshot_request.symlink_to("nowhere")  # a link takes no space of its own
        ran.wait_said("warning: ")
        (supervise.folder / "end").touch()
        # How the job ended could not be written down, but is seen all the same.
        ran.check(3)
        assert "exit status 3" in ran.said
        assert list(supervise.snapshots) == [saved]
        (ckptctl.store / "ballast").unlink()
        supervise.require_nothing_left()


def test_snapshots_that_do_not_fit_are_told_and_the_job_goes_on(supervise: Supervised, ckptctl: CommandLine) -> None:
    with tmpfs(ckptctl.store, "size=84m"):
        told = supervise.folder / "told"
        tell = f"command:sh -c 'echo $CKPTCTL_EVENT >>{told}'"
        ran = supervise("--every", "5steps", "--notify", tell, "--notify-on", "disk-low", job=JOB)
        supervise.be_seen()
        for number, step in enumerate(range(5, 60, 5), 1):
            supervise.allow(step)
            wait_for(lambda: "The snapshot needs about" in ran.said or len(ran.saved) >= number, 60, ran.said)  # noqa: B023
        supervise.allow(None)
        ran.check(0)
        assert "The snapshot needs about" in ran.said
        assert supervise.log() == log_of(60)
        assert lines(told) == ["disk-low"]
        assert 1 <= len(supervise.snapshots) <= 6
        assert any(alert.code == "E_NO_SPACE" for alert in supervise.record.alerts)


def test_a_snapshot_of_a_job_that_was_just_ending_is_passed_over(supervise: Supervised, ckptctl: CommandLine) -> None:
    """Restored it would die at once, each time."""
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    first.signal(signal.SIGKILL)
    first.wait()
    good = supervise.run.latest.readlink().name
    keeper, job = supervise.keeper(), supervise.job()
    os.kill(keeper, signal.SIGSTOP)  # it does not ask for the job's status, as in the moment after its death
    os.kill(job, signal.SIGKILL)
    wait_for(lambda: state(job) == "Z", 10, "the death of the job")
    ckptctl("dump", "--pid", str(keeper), "--run", "gpt").check()
    assert supervise.run.latest.readlink().name != good
    second = supervise(job=JOB).check(0)
    assert "The job was just ending when this snapshot was taken. The one before it is tried." in second.said
    assert f"goes on from {good}" in second.said
    assert supervise.log() == log_of(60)
