"""What is remembered: across resumes, where the step goes back, and across supervisors and boots as JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckptctl.schedule.history import History, Taken, resumed, snapshot_ended, snapshot_failed, started
from ckptctl.schedule.kept import Kept, kept, recalled
from ckptctl.store import codec
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.codec import Misshapen
from ckptctl.store.manifest import Progress
from support.schedules import Supervised, policy_of

BOOT = "0b1e9c2e-6d43-4f0a-9c39-2d3cf2a7e111"
OTHER_BOOT = "11111111-6d43-4f0a-9c39-2d3cf2a7e111"


def test_after_a_resume_the_same_steps_are_due_again() -> None:
    job = Supervised(policy_of("500steps"), steps_per_s=10.0, duration_s=0.0)
    job.pass_time(160)
    assert job.steps() == [500, 1000, 1500]
    job.resume(step=700)
    job.pass_time(100)
    assert job.steps() == [500, 1000, 1500, 1000, 1500]


def test_after_a_resume_intervals_begin_anew() -> None:
    job = Supervised(policy_of("10m"), duration_s=0.0)
    job.pass_time(1000)
    job.resume(step=600)
    job.look()
    assert job.decision.outlook.in_s == 600
    job.pass_time(599)
    assert len(job.snapshots) == 1
    job.pass_time(1)
    assert job.snapshots[-1].note == "every 10m: 10m since the resume"


def test_a_job_that_hangs_right_after_its_resume_is_not_dumped_again() -> None:
    job = Supervised(policy_of("10m"), duration_s=0.0)
    job.resume(step=600)
    job.steps_per_s = 0.0
    job.pass_time(1200)
    assert job.snapshots == []
    assert job.decision.waits_for == ("the step is still 600",)


def test_a_resumed_job_needs_no_first_snapshot() -> None:
    job = Supervised(policy_of("1h", first_after="2m"), duration_s=0.0)
    job.resume(step=600)
    job.pass_time(600)
    assert job.snapshots == []


def test_epochs_after_a_resume() -> None:
    job = Supervised(policy_of(at_epoch_end=True), epoch=4, duration_s=0.0)
    job.resume(step=100, epoch=2)
    for epoch in (2, 3, 3, 4):
        job.epoch = epoch
        job.pass_time(5)
    assert [snapshot.progress.epoch for snapshot in job.snapshots] == [3, 4]


def test_best_forgets_what_lies_behind_the_point_of_the_resume() -> None:
    job = Supervised(policy_of(on_best=("val_loss",)), duration_s=0.0)
    for value in (3.0, 2.0, 1.0):
        job.metrics["val_loss"] = value
        job.pass_time(100)
    assert job.steps() == [1, 101, 201]
    job.resume(step=101, metrics={"val_loss": 2.0})
    assert not job.look().due
    assert job.history.best(BestBy("val_loss", Mode.MIN)) == 2.0
    job.metrics["val_loss"] = 1.5
    assert job.act().due
    assert job.snapshots[-1].note == "val_loss is best: 1.5, before it was 2"


def test_a_job_that_goes_back_by_itself() -> None:
    job = Supervised(policy_of("500steps", on_best=("val_loss",)), steps_per_s=10.0, duration_s=0.0)
    job.metrics["val_loss"] = 1.0
    job.pass_time(120)
    assert job.steps() == [10, 500, 1000]
    job.step = 300.0
    job.look()
    assert job.history.best(BestBy("val_loss", Mode.MIN)) == 1.0  # that of step 10
    job.pass_time(80)
    assert job.steps() == [10, 500, 1000, 500, 1000]
    job.metrics["val_loss"] = 0.5
    job.pass_time(1)
    job.step = 900.0
    job.look()
    assert job.history.best(BestBy("val_loss", Mode.MIN)) == 1.0


def test_going_back_less_than_to_the_last_snapshot_changes_nothing() -> None:
    job = Supervised(policy_of("500steps"), duration_s=0.0)
    job.pass_time(700)
    job.step = 600.0
    job.pass_time(350)
    assert job.steps() == [500]
    job.pass_time(60)
    assert job.steps() == [500, 1000]


def test_a_resume_without_a_history() -> None:
    policy = policy_of("500steps", on_best=("val_loss",))
    history = resumed(policy, None, 50.0, Progress(700, 1, {"val_loss": 2.0}))
    assert history.saved
    assert (history.step, history.epoch, history.since_s) == (700, 1, 50.0)
    assert history.best(BestBy("val_loss", Mode.MIN)) == 2.0


def test_what_snapshots_cost_is_known_after_a_resume_and_a_new_start() -> None:
    job = Supervised(policy_of("auto"), pause_s=3.0)
    job.take()
    job.resume(step=0)
    assert [cost.pause_s for cost in job.history.costs] == [3.0]
    fresh = started(9.0, job.history)
    assert [cost.pause_s for cost in fresh.costs] == [3.0]
    assert not fresh.saved


def test_only_the_last_costs_count_and_a_pause_nobody_measured_does_not() -> None:
    history = started(0.0)
    for number in range(20):
        taken = Taken(number * 10.0, number * 10.0 + 4, Progress(), float(number) if number != 15 else None)
        history = snapshot_ended(policy_of(), history, taken)
    assert [cost.pause_s for cost in history.costs] == [11, 12, 13, 14, 16, 17, 18, 19]


def test_the_history_of_one_metric_does_not_push_out_another() -> None:
    policy = policy_of(on_best=("a:min", "b:min"))
    history = started(0.0)
    for number in range(100):
        progress = Progress(number, None, {"a": -float(number), "b": 1.0})
        history = snapshot_ended(policy, history, Taken(number, number, progress))
    assert history.best(BestBy("b", Mode.MIN)) == 1.0
    assert history.best(BestBy("a", Mode.MIN)) == -99.0
    assert len(history.bests) < 50


def test_a_best_of_the_other_mode_says_nothing() -> None:
    history = snapshot_ended(policy_of(on_best=("a:min",)), started(0.0), Taken(1, 2, Progress(1, None, {"a": 5.0})))
    assert history.best(BestBy("a", Mode.MAX)) is None


def aged_history() -> Supervised:
    job = Supervised(policy_of("10m", on_best=("val_loss",), when_gpu_stable="1MiB"), epoch=1, gpu_used_bytes=5)
    job.metrics["val_loss"] = 1.25
    job.pass_time(700)
    job.history = snapshot_failed(job.history, job.now_s, "no space")
    return job


def written(history: History) -> dict[str, object]:
    """As it lies in a file."""
    return codec.loads(codec.dumps(kept(history, BOOT)))


def read_back(raw: object, boot: str, now_s: float) -> History:
    return recalled(codec.decode(Kept, raw), boot, now_s)


def test_the_next_supervisor_of_this_boot_goes_on_where_this_one_was() -> None:
    job = aged_history()
    job.pass_time(30)
    read = read_back(written(job.history), BOOT, job.now_s + 5)
    assert read == replace(job.history, gpu=(), gpu_waiting_s=None)


@pytest.mark.parametrize(("boot", "now_s"), [(OTHER_BOOT, 1e6), (OTHER_BOOT, 3.0), (BOOT, 3.0)])
def test_times_of_another_clock_begin_now(boot: str, now_s: float) -> None:
    history = aged_history().history
    read = read_back(written(history), boot, now_s)
    assert read.since_s == read.started_s == read.moved_s == now_s
    assert read.failures is not None
    assert read.failures.last_s == now_s
    assert (read.step, read.epoch, read.bests, read.costs) == (
        history.step,
        history.epoch,
        history.bests,
        history.costs,
    )


@pytest.mark.parametrize("raw", [None, [], {}, {"boot_id": BOOT}, {"boot_id": BOOT, "history": {"started_s": 1}}])
def test_what_is_no_history_is_refused(raw: object) -> None:
    with pytest.raises(Misshapen):
        read_back(raw, BOOT, 5.0)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_a_time_that_is_no_number_is_refused(bad: str) -> None:
    document = written(started(1.0))
    document["history"]["since_s"] = bad  # type: ignore[index]
    with pytest.raises(Misshapen):
        read_back(document, BOOT, 5.0)
