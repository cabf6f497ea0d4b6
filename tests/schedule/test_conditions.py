"""What a snapshot that is due waits for: spacing, failures, a job that hangs, GPU memory; and the alerts."""

from __future__ import annotations

import pytest

from ckptctl.schedule.alerts import AlertCode
from ckptctl.schedule.conditions import retry_after_s
from ckptctl.schedule.decision import fresh_alerts, told
from ckptctl.schedule.observation import Request
from support.schedules import Supervised, policy_of

HOUR = 3600.0
MIB = 1 << 20


def codes(job: Supervised) -> list[AlertCode]:
    return [alert.code for alert in job.decision.alerts]


def test_snapshots_keep_their_least_interval() -> None:
    job = Supervised(policy_of("10steps", min_interval="1m"))
    job.pass_time(HOUR)
    first, *later = job.gaps()
    # It is an interval between snapshots: the first has none before it.
    assert first == 10
    assert all(60 <= gap <= 70 for gap in later)
    assert len(later) > 50


def test_what_waits_for_the_least_interval_says_so() -> None:
    job = Supervised(policy_of("10steps", min_interval="1m"))
    job.pass_time(10)
    job.pass_time(20)
    assert job.decision.reasons
    assert job.decision.waits_for == ("at least 1m between snapshots",)
    assert job.decision.outlook.words == "in 40s"
    job.take()
    job.look()
    assert job.decision.outlook.words == "at step 40, but not within 1m"


def test_failed_snapshots_are_tried_again_ever_more_rarely() -> None:
    job = Supervised(policy_of("10m"), fails=True, duration_s=5.0)
    job.pass_time(6 * HOUR)
    assert job.gaps()[:7] == [600, 60, 120, 240, 480, 960, 1800]
    assert set(job.gaps()[7:]) == {1800}
    assert codes(job) == [AlertCode.SNAPSHOT_FAILED]
    assert f"last {len(job.snapshots)} snapshots failed: criu failed." in job.decision.alerts[0].words


def test_the_wait_after_failures_has_an_end() -> None:
    assert [retry_after_s(count) for count in (1, 2, 6, 10**6)] == [60, 120, 1800, 1800]


def test_after_a_good_snapshot_the_failures_are_forgotten() -> None:
    job = Supervised(policy_of("10m"), fails=True)
    job.pass_time(900)
    job.fails = False
    job.pass_time(900)
    assert job.snapshots[-1].good
    assert job.history.failures is None
    assert codes(job) == []


def test_each_failure_is_told_once() -> None:
    job = Supervised(policy_of("10m"), fails=True)
    heard = 0
    for _ in range(1800):
        job.pass_time(1)
        alerts = fresh_alerts(job.history, job.decision)
        job.history = told(job.history, alerts)
        heard += len(alerts)
    assert heard == len(job.snapshots) - (1 if job.snapshots[-1].ended_s >= job.now_s else 0)
    assert heard >= 4


def test_that_the_overhead_stretches_intervals_is_told_once() -> None:
    job = Supervised(policy_of("1m", max_overhead="5%"), pause_s=9.0, duration_s=12.0)
    heard = 0
    for _ in range(2000):
        job.pass_time(1)
        alerts = fresh_alerts(job.history, job.decision)
        job.history = told(job.history, alerts)
        heard += len(alerts)
    assert heard == 1


def test_what_was_told_is_not_kept_for_ever() -> None:
    job = Supervised(policy_of("1m"), fails=True)
    for _ in range(100):
        job.take()
        job.history = told(job.history, fresh_alerts(job.history, job.look()))
        assert fresh_alerts(job.history, job.decision) == ()
    assert len(job.history.told) < 100


def test_a_request_does_not_wait_after_a_failure() -> None:
    job = Supervised(policy_of("10m"), fails=True)
    job.pass_time(610)
    assert not job.look().due
    assert job.look(Request.FILE).due


def test_a_job_that_hangs_gets_no_snapshot_but_an_alert() -> None:
    job = Supervised(policy_of("10m"), duration_s=0.0)
    job.pass_time(600)
    job.steps_per_s = 0.0
    job.pass_time(3 * HOUR)
    assert len(job.snapshots) == 1
    assert codes(job) == [AlertCode.NO_PROGRESS]
    assert job.decision.waits_for == ("the step is still 600",)
    assert job.decision.outlook.words == "when the step moves on"
    assert "2h59m" in job.decision.alerts[0].words or "3h" in job.decision.alerts[0].words
    job.steps_per_s = 1.0
    job.pass_time(2)
    assert len(job.snapshots) == 2
    assert codes(job) == []


def test_a_new_metric_or_epoch_shows_that_a_job_lives() -> None:
    # The usual order: the step, a snapshot because of it, then the validation.
    job = Supervised(policy_of("10m", on_best=("val_loss",), at_epoch_end=True), epoch=1, steps_per_s=0.0)
    job.take()
    job.metrics["val_loss"] = 2.0
    assert job.act().due
    job.epoch = 2
    assert job.act().due
    assert not job.act().due


def test_a_hang_is_told_once() -> None:
    job = Supervised(policy_of("10m"), duration_s=0.0)
    job.pass_time(600)
    job.steps_per_s = 0.0
    heard = 0
    for _ in range(1300):
        job.pass_time(1)
        alerts = fresh_alerts(job.history, job.decision)
        job.history = told(job.history, alerts)
        heard += len(alerts)
    assert heard == 1


def test_a_hang_is_only_known_where_the_step_is() -> None:
    job = Supervised(policy_of("10m"), step=None)
    job.pass_time(HOUR)
    assert len(job.snapshots) == 5


def test_the_first_snapshot_does_not_need_a_step_that_moved() -> None:
    for policy in (policy_of("1h", first_after="2m"), policy_of("2m")):
        job = Supervised(policy, steps_per_s=0.0)
        job.pass_time(600)
        assert job.gaps() == [120]


def test_a_hanging_job_is_dumped_on_request() -> None:
    job = Supervised(policy_of("10m"), steps_per_s=0.0)
    job.take()
    for request in Request:
        assert job.look(request).due


def test_a_trigger_that_can_see_nothing_says_so() -> None:
    job = Supervised(policy_of("500steps", "1ep"), step=None, duration_s=0.0)
    job.pass_time(590)
    assert codes(job) == []
    job.pass_time(20)
    assert codes(job) == [AlertCode.PROGRESS_UNKNOWN]
    assert "every 500 steps, every epoch" in job.decision.alerts[0].words
    job.step = 1.0
    job.pass_time(700)
    assert "are due every epoch are not taken" in job.decision.alerts[0].words
    job.epoch = 0
    job.pass_time(10)
    assert codes(job) == []


def test_a_step_that_is_known_no_more_is_missed_too() -> None:
    job = Supervised(policy_of("5000steps", at_epoch_end=True), epoch=0)
    job.pass_time(1000)
    job.step = job.epoch = None
    job.pass_time(590)
    assert codes(job) == []
    job.pass_time(20)
    assert codes(job) == [AlertCode.PROGRESS_UNKNOWN]
    assert "are due every 5000 steps are not taken" in job.decision.alerts[0].words


def test_an_interval_in_time_needs_no_progress() -> None:
    job = Supervised(policy_of("1h"), step=None)
    job.pass_time(1800)
    assert codes(job) == []


def gpu_job(text: str = "64MiB/10s/1m") -> Supervised:
    return Supervised(policy_of("100s", when_gpu_stable=text), gpu_used_bytes=0, duration_s=0.0)


def shake(job: Supervised, seconds: int, amplitude_bytes: int) -> None:
    for number in range(seconds):
        job.gpu_used_bytes = 1000 * MIB + (number % 2) * amplitude_bytes
        job.pass_time(1)


def test_a_snapshot_does_not_wait_for_gpu_memory_that_is_stable() -> None:
    job = gpu_job()
    shake(job, 100, 64 * MIB)
    assert job.gaps() == [100]
    assert job.decision.remarks == ()
    assert codes(job) == []


def test_a_snapshot_waits_until_gpu_memory_is_stable() -> None:
    job = gpu_job()
    shake(job, 130, 65 * MIB)
    assert job.snapshots == []
    assert job.decision.waits_for == ("GPU memory is not stable yet",)
    assert job.decision.outlook.words == "in 30s, or when GPU memory is stable"
    shake(job, 20, 1 * MIB)
    # The last jump lies just outside of the window.
    assert job.gaps() == [141]
    assert job.snapshots[0].note == "every 1m40s: 2m21s since the start"


def test_after_the_limit_the_snapshot_is_taken_anyway_and_says_so() -> None:
    job = gpu_job()
    shake(job, 159, 100 * MIB)
    assert job.snapshots == []
    shake(job, 1, 100 * MIB)
    assert job.gaps() == [160]
    assert codes(job) == [AlertCode.GPU_UNSTABLE]
    assert "not stable within 1m" in job.snapshots[0].note


def test_the_limit_runs_anew_for_each_snapshot() -> None:
    job = gpu_job()
    shake(job, 800, 100 * MIB)
    assert job.gaps() == [160] * 5


def test_the_limit_runs_anew_where_the_next_snapshot_is_due_at_once() -> None:
    job = Supervised(policy_of("1s", when_gpu_stable="0/10s/1m"), gpu_used_bytes=0, duration_s=0.0)
    shake(job, 300, MIB)
    assert all(gap >= 60 for gap in job.gaps())


def test_gpu_memory_is_only_spoken_of_where_nothing_else_holds() -> None:
    job = Supervised(policy_of("10steps", when_gpu_stable="0/10s/1m", min_interval="5m"), gpu_used_bytes=0)
    job.take()
    shake(job, 60, MIB)
    assert job.decision.waits_for == ("at least 5m between snapshots",)


def test_the_limit_does_not_run_while_something_else_holds_the_snapshot() -> None:
    job = Supervised(policy_of("10steps", when_gpu_stable="0/10s/1m", min_interval="5m"), gpu_used_bytes=0)
    job.take()
    shake(job, 900, MIB)
    assert all(gap == 360 for gap in job.gaps()[1:])
    assert len(job.gaps()) > 2


def test_a_slow_rise_within_the_tolerance_is_stable() -> None:
    job = gpu_job()
    for _ in range(100):
        assert job.gpu_used_bytes is not None
        job.gpu_used_bytes += 6 * MIB
        job.pass_time(1)
    assert job.gaps() == [100]


def test_gpu_memory_must_be_watched_for_the_whole_window() -> None:
    job = gpu_job("64MiB/50s/5m")
    job.pass_time(80)
    job.take()  # the samples before it say nothing
    job.pass_time(100)
    assert len(job.snapshots) == 2
    job = Supervised(policy_of("10s", when_gpu_stable="64MiB/50s/5m"), gpu_used_bytes=0, duration_s=0.0)
    job.pass_time(170)
    # A dump moves GPU memory: what was seen before it says nothing of the time after it.
    assert job.gaps() == [50, 51, 51]


def test_gpu_memory_is_not_watched_during_a_snapshot() -> None:
    job = gpu_job()
    job.pass_time(50)
    job.look(under_way=True)
    assert job.history.gpu == ()


def test_gpu_memory_that_cannot_be_read_is_no_reason_to_wait() -> None:
    job = Supervised(policy_of("100s", when_gpu_stable="64MiB"), gpu_used_bytes=None)
    job.pass_time(100)
    assert job.gaps() == [100]
    assert "cannot be read" in job.snapshots[0].note
    assert codes(job) == [AlertCode.GPU_UNKNOWN]


def test_a_poll_slower_than_the_window_is_enough() -> None:
    job = Supervised(policy_of("100s", when_gpu_stable="64MiB/2s"), gpu_used_bytes=5)
    job.pass_time(100, tick_s=5.0)
    assert job.gaps() == [100]


def test_the_samples_that_are_kept_are_those_of_the_window() -> None:
    job = gpu_job()
    job.pass_time(90)
    assert len(job.history.gpu) == 11


@pytest.mark.parametrize("tick_s", [0.1, 0.3, 1 / 3, 7.7])
def test_sums_of_fractions_do_not_delay(tick_s: float) -> None:
    job = Supervised(policy_of("77s"), now_s=1000.0)
    job.pass_time(77 + tick_s, tick_s)
    assert len(job.snapshots) == 1
