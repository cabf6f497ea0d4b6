"""Young's and Daly's interval against a table, and how `auto` and the limit of overhead use what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.schedule.alerts import AlertCode
from ckptctl.schedule.explain import explain
from ckptctl.schedule.history import started
from ckptctl.schedule.intervals import daly_interval_s
from support.schedules import Supervised, policy_of

HOUR = 3600.0
COSTS = (10.0, 60.0, 300.0)
# GPUs, then the interval in hours for each cost; 50,677 GPU hours per interruption (Llama 3 on 16,384 GPUs).
BY_GPUS = [(1, 16.8, 41, 92), (8, 5.9, 14.5, 32), (64, 2.1, 5.1, 11.4), (512, 44 / 60, 108 / 60, 240 / 60),
           (4096, 16 / 60, 38 / 60, 83 / 60)]  # fmt: skip
# Hours between interruptions, then the interval in minutes.
PREEMPTIBLE = [(2, 6, 15, 31), (6, 11, 26, 57), (24, 22, 53, 117)]


@pytest.mark.parametrize(
    ("mtbf_s", "cost_s", "interval_s"),
    [(50677 * HOUR / row[0], cost, hours * HOUR) for row in BY_GPUS for cost, hours in zip(COSTS, row[1:], strict=True)]
    + [
        (row[0] * HOUR, cost, minutes * 60) for row in PREEMPTIBLE for cost, minutes in zip(COSTS, row[1:], strict=True)
    ],
)
def test_the_interval_is_that_of_the_table(mtbf_s: float, cost_s: float, interval_s: float) -> None:
    # The table rounds to its last digit.
    assert daly_interval_s(cost_s, mtbf_s) == pytest.approx(interval_s, rel=0.035, abs=30)


@given(st.floats(0.1, 1000), st.floats(3000, 1e7))
def test_no_other_interval_wastes_much_less(cost_s: float, mtbf_s: float) -> None:
    def waste(interval_s: float) -> float:
        return cost_s / (cost_s + interval_s) + (interval_s + cost_s) / 2 / mtbf_s

    chosen = waste(daly_interval_s(cost_s, mtbf_s))
    assert all(chosen <= waste(daly_interval_s(cost_s, mtbf_s) * factor) * 1.01 for factor in (0.25, 0.5, 2, 4))


def test_a_snapshot_dearer_than_twice_the_time_between_interruptions() -> None:
    assert daly_interval_s(500, 100) == 100


def test_auto_measures_first_and_then_follows_the_formula() -> None:
    job = Supervised(policy_of("auto", mtbf="2h"), pause_s=10.0, duration_s=30.0)
    job.pass_time(3 * HOUR)
    first, *later = job.gaps()
    assert first == 600
    assert later[0] == pytest.approx(daly_interval_s(10, 7200), abs=1)
    assert len(later) > 10
    # The pause counts, not how long the snapshot takes in all: the job works meanwhile.
    job.pause_s = 60.0
    job.duration_s = 70.0
    job.pass_time(6 * HOUR)
    assert job.gaps()[-1] == pytest.approx(daly_interval_s(60, 7200), abs=1)


def test_auto_without_mtbf_assumes_one_interruption_a_day() -> None:
    job = Supervised(policy_of("auto"), pause_s=60.0, duration_s=70.0)
    job.pass_time(4 * HOUR)
    assert job.gaps()[0] == 600
    assert job.gaps()[1] == pytest.approx(53 * 60, abs=60)
    assert any("assumed" in line for line in explain(job.policy, job.history))


def test_auto_has_a_floor_and_does_not_wait_long_where_interruptions_are_frequent() -> None:
    job = Supervised(policy_of("auto", mtbf="10m"), pause_s=0.1, duration_s=1.0)
    job.pass_time(600)
    assert job.gaps()[:3] == [60, 60, 60]
    assert any("raised to 1m" in line for line in explain(job.policy, job.history))


def test_explain_says_how_auto_came_to_its_interval() -> None:
    policy = policy_of("auto", mtbf="6h")
    before = "\n".join(explain(policy, started(0.0)))
    assert "6h" in before
    assert "not known yet" in before
    assert "10m" in before
    job = Supervised(policy, pause_s=60.0, duration_s=61.0)
    job.pass_time(1000)
    after = "\n".join(explain(policy, job.history))
    assert "stops the job for 1m, as measured once" in after
    assert "26m" in after
    assert "3.7%" in after


def test_explain_names_every_option() -> None:
    policy = policy_of("500steps", "1ep", "30m", first_after="2m", at_epoch_end=True, on_best=("val_loss", "acc"),
                       when_gpu_stable="64MiB", min_interval="5m", max_overhead="5%")  # fmt: skip
    text = "\n".join(explain(policy, started(0.0)))
    for words in ("every 500 steps", "every epoch", "every 30m", "2m after the start", "end of each epoch", "val_loss",
                  "lower", "acc", "higher", "64.0 MiB", "At least 5m", "5%"):  # fmt: skip
        assert words in text
    assert explain(policy_of(), started(0.0)) == ("Snapshots are taken only when they are asked for.",)


def test_the_interval_stretches_when_the_pause_is_too_dear() -> None:
    job = Supervised(policy_of("1m", max_overhead="5%"), pause_s=9.0, duration_s=12.0)
    job.pass_time(HOUR)
    assert job.gaps()[0] == 60
    # 9 s of pause are 5 % of 180 s.
    assert job.gaps()[1:] == [171.0] * len(job.gaps()[1:])
    paused = sum(9.0 for _ in job.snapshots)
    assert paused / (job.now_s - 1000) <= 0.05


def codes(job: Supervised) -> list[AlertCode]:
    return [alert.code for alert in job.decision.alerts]


def test_stretching_is_said() -> None:
    job = Supervised(policy_of("1m", max_overhead="5%"), pause_s=9.0, duration_s=12.0)
    job.pass_time(60)
    job.pass_time(30)
    assert job.decision.outlook.in_s == pytest.approx(141)
    assert codes(job) == []
    job.pass_time(40)
    assert codes(job) == [AlertCode.OVERHEAD]
    assert "5%" in job.decision.alerts[0].words
    assert job.decision.reasons
    assert not job.decision.due
    assert job.decision.outlook.in_s == pytest.approx(101)


def test_a_cheap_snapshot_is_not_put_off() -> None:
    job = Supervised(policy_of("1m", max_overhead="5%"), pause_s=1.0, duration_s=12.0)
    job.pass_time(HOUR)
    assert set(job.gaps()) == {60.0}
