"""When a snapshot is due: each trigger alone and several together, on a clock that is a plain number."""

from __future__ import annotations

import math

import pytest

from ckptctl.schedule.observation import Request
from ckptctl.schedule.triggers import Trigger
from support.schedules import Supervised, policy_of

MINUTE = 60.0
HOUR = 3600.0


def triggers(job: Supervised) -> list[Trigger]:
    return [reason.trigger for reason in job.decision.reasons]


def test_an_interval_runs_from_the_end_of_the_last_snapshot() -> None:
    job = Supervised(policy_of("10m"), duration_s=95.0)
    job.pass_time(HOUR)
    assert job.gaps() == [600.0] * 5


def test_a_snapshot_longer_than_the_interval_is_followed_by_a_whole_interval() -> None:
    job = Supervised(policy_of("1m"), duration_s=200.0, pause_s=150.0)
    job.pass_time(HOUR)
    assert len(job.snapshots) == 14
    assert set(job.gaps()) == {60.0}


def test_steps_do_not_drift() -> None:
    # The job makes 7 steps between two looks, so that every snapshot is late.
    job = Supervised(policy_of("500steps"), steps_per_s=7.0)
    job.pass_time(2000)
    steps = [step for step in job.steps() if step is not None]
    assert [step // 500 for step in steps] == list(range(1, 1 + len(steps)))
    assert len(steps) > 20
    assert max(step % 500 for step in steps) < 7


def test_several_multiples_passed_at_once_are_one_snapshot() -> None:
    job = Supervised(policy_of("10steps"), duration_s=0.0)
    job.step = 57.0
    assert job.act().due
    assert not job.act().due
    assert job.decision.outlook.step == 60


def test_a_snapshot_for_another_reason_does_not_shift_the_grid() -> None:
    job = Supervised(policy_of("100steps"), duration_s=0.0)
    job.pass_time(50)
    job.take()
    job.pass_time(200)
    assert job.steps() == [50, 100, 200]


def test_a_job_found_in_the_middle_is_counted_from_there() -> None:
    job = Supervised(policy_of("500steps"), step=730.0)
    assert not job.decision.due
    assert job.decision.outlook.step == 1000
    assert job.decision.outlook.words == "at step 1000"


def test_a_step_that_is_not_known_yet() -> None:
    job = Supervised(policy_of("500steps", "1h"), step=None)
    assert job.decision.outlook.words == "in 1h, or once its step is known"
    job.step = 3.0
    assert not job.act().due
    assert job.decision.outlook.step == 500


@pytest.mark.parametrize("spelling", [{"every": ("1epoch",)}, {"at_epoch_end": True}])
def test_the_end_of_an_epoch(spelling: dict[str, object]) -> None:
    every = spelling.pop("every", ())
    job = Supervised(policy_of(*every, **spelling), epoch=0, duration_s=0.0)  # type: ignore[misc]
    for epoch in (0, 0, 1, 1, 2, 5, 5):
        job.epoch = epoch
        job.pass_time(10)
    assert [snapshot.progress.epoch for snapshot in job.snapshots] == [1, 2, 5]
    assert job.decision.outlook.words == "at epoch 6"


def test_every_second_epoch_is_a_grid_too() -> None:
    job = Supervised(policy_of("2epochs"), epoch=1, duration_s=0.0)
    for epoch in range(1, 8):
        job.epoch = epoch
        job.pass_time(10)
    assert [snapshot.progress.epoch for snapshot in job.snapshots] == [2, 4, 6]


def test_the_first_snapshot_comes_early_and_once() -> None:
    job = Supervised(policy_of("1h", first_after="2m"), duration_s=10.0)
    job.pass_time(HOUR)
    assert job.gaps() == [120.0]
    assert job.snapshots[0].note == "the first snapshot, 2m after the start"
    job.pass_time(HOUR)
    assert job.gaps() == [120.0, 3600.0]


def test_a_first_snapshot_is_not_needed_after_another() -> None:
    job = Supervised(policy_of("30s", first_after="2m"), duration_s=0.0)
    job.pass_time(150)
    assert all("first" not in snapshot.note for snapshot in job.snapshots)


def best_values(job: Supervised, values: list[float], name: str = "val_loss") -> list[float]:
    for value in values:
        job.metrics[name] = value
        job.pass_time(10)
    return [snapshot.progress.metrics[name] for snapshot in job.snapshots]


def test_best_is_strictly_better_than_at_any_snapshot() -> None:
    job = Supervised(policy_of(on_best=("val_loss",)), duration_s=0.0)
    assert best_values(job, [3.0, 3.0, 2.5, 2.7, math.nan, 2.5, -math.inf, 2.4]) == [3.0, 2.5, 2.4]
    assert job.decision.outlook.words == "when val_loss is below 2.4"


def test_best_of_a_metric_of_which_more_is_better() -> None:
    job = Supervised(policy_of(on_best=("acc",)), duration_s=0.0)
    assert best_values(job, [math.nan, 0.5, 0.4, 0.5, math.inf, 0.6], "acc") == [0.5, 0.6]
    assert job.decision.outlook.words == "when acc is above 0.6"


def test_nothing_is_best_before_it_is_known() -> None:
    job = Supervised(policy_of(on_best=("val_loss",)))
    job.metrics["loss"] = 1.0
    assert not job.act().due
    assert job.decision.outlook.words == "once val_loss is known"


def test_a_best_value_in_a_snapshot_for_another_reason_counts() -> None:
    job = Supervised(policy_of("1m", on_best=("val_loss",)), duration_s=0.0)
    job.metrics["val_loss"] = 2.0
    job.take()
    assert not job.act().due


def test_a_best_value_whose_snapshot_failed_is_still_to_be_saved() -> None:
    job = Supervised(policy_of(on_best=("val_loss",)), duration_s=0.0, fails=True)
    job.metrics["val_loss"] = 2.0
    job.pass_time(10)
    job.fails = False
    job.pass_time(120)
    assert [snapshot.good for snapshot in job.snapshots] == [False, True]


def test_any_trigger_is_enough_and_all_reasons_are_given() -> None:
    job = Supervised(policy_of("100steps", "100s", "1epoch", at_epoch_end=True, on_best=("val_loss",)), epoch=0)
    job.now_s += 100
    job.step, job.epoch, job.metrics = 100.0, 1, {"val_loss": 1.5}
    decision = job.look()
    assert decision.due
    assert triggers(job) == [Trigger.STEPS, Trigger.TIME, Trigger.EPOCHS, Trigger.EPOCHS, Trigger.BEST]
    assert decision.note == (
        "every 100 steps: step 100; every 1m40s: 1m40s since the start; every epoch: epoch 1; "
        "the end of an epoch: from 0 to 1; val_loss is best: 1.5, the first value"
    )
    assert decision.outlook.words == "now"


def test_the_soonest_of_several_is_foretold() -> None:
    job = Supervised(policy_of("500steps", "200steps", "1h", "30m", "2ep"), step=150.0, epoch=3)
    assert job.decision.outlook.in_s == 1800
    assert job.decision.outlook.words == "in 30m, or at step 200, or at epoch 4"


@pytest.mark.parametrize("request_", Request)
def test_a_request_overrides_everything_but_a_snapshot_under_way(request_: Request) -> None:
    policy = policy_of("1h", min_interval="30m", max_overhead="1%", when_gpu_stable="0/10s")
    job = Supervised(policy, gpu_used_bytes=1)
    job.take()
    job.fails = True
    job.take()
    job.steps_per_s = 0.0
    job.step = job.history.step
    assert job.look(request_).due
    assert triggers(job) == [Trigger.REQUEST]
    assert job.decision.note
    decision = job.look(request_, under_way=True)
    assert not decision.due
    assert decision.waits_for == ("a snapshot is under way",)


def test_a_request_needs_no_triggers() -> None:
    job = Supervised(policy_of())
    job.pass_time(HOUR)
    assert job.snapshots == []
    assert job.decision.outlook.words == "only when asked for"
    assert job.act(Request.FILE).due
    assert len(job.snapshots) == 1


def test_never_two_at_once() -> None:
    job = Supervised(policy_of("1m"))
    job.now_s += 3600
    job.step = 10.0
    decision = job.look(under_way=True)
    assert not decision.due
    assert decision.reasons
    assert decision.outlook.words == "after the one under way"
    assert job.look().due


def test_a_machine_that_slept_is_one_snapshot_behind_and_no_more() -> None:
    # CLOCK_MONOTONIC stands still in sleep: nothing happens at all. On a clock that goes on, this is what happens.
    job = Supervised(policy_of("10m"))
    job.pass_time(5 * MINUTE)
    job.now_s += 8 * HOUR
    job.pass_time(5 * MINUTE)
    assert len(job.snapshots) == 1
    job.pass_time(10 * MINUTE)
    assert len(job.snapshots) == 2


def test_a_supervisor_that_looks_rarely_still_takes_what_is_due() -> None:
    job = Supervised(policy_of("10m", "1000steps"))
    job.pass_time(6 * HOUR, tick_s=3600)
    assert len(job.snapshots) == 6
