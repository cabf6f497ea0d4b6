"""What must hold for every policy and every course of events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptctl.schedule.conditions import retry_after_s
from ckptctl.schedule.decision import told
from ckptctl.schedule.explain import explain
from ckptctl.schedule.intervals import auto_interval_s, overhead_spacing_s
from ckptctl.schedule.kept import Kept, kept, recalled
from ckptctl.schedule.observation import Request
from ckptctl.schedule.policy import EveryAuto, EveryEpochs, EverySeconds, EverySteps, GpuStable, Policy
from ckptctl.store import codec
from ckptctl.store.best import BestBy, Mode
from support.schedules import Supervised

Event = Callable[[Supervised], None]

timed = st.builds(EverySeconds, st.floats(1, 5000)) | st.builds(EveryAuto, st.none() | st.floats(60, 1e6))
intervals = st.one_of(timed, st.builds(EverySteps, st.integers(1, 50)), st.builds(EveryEpochs, st.integers(1, 3)))
policies = st.builds(
    Policy,
    every=st.lists(intervals, max_size=3).map(tuple),
    first_after_s=st.none() | st.floats(0, 500),
    at_epoch_end=st.booleans(),
    on_best=st.sets(st.sampled_from([BestBy("a", Mode.MIN), BestBy("b", Mode.MAX)])).map(tuple),
    when_gpu_stable=st.none() | st.builds(GpuStable, st.just(10), st.floats(1, 30), st.floats(30, 300)),
    min_interval_s=st.just(0.0) | st.floats(1, 2000),
    max_overhead=st.none() | st.floats(0.01, 0.5),
)


def wait(seconds: float) -> Event:
    def happen(job: Supervised) -> None:
        job.pass_time(seconds, seconds)

    return happen


def change(field: str, value: object) -> Event:
    return lambda job: setattr(job, field, value)


def measure(name: str, value: float) -> Event:
    return lambda job: job.metrics.update({name: value})


def resume(step: int | None, epoch: int | None) -> Event:
    return lambda job: job.resume(step, epoch)


def ask(job: Supervised) -> None:
    job.act(Request.FILE)


events: st.SearchStrategy[Event] = st.one_of(
    st.builds(wait, st.floats(0.1, 3000)),
    st.builds(change, st.just("step"), st.none() | st.integers(0, 300).map(float)),
    st.builds(change, st.just("epoch"), st.none() | st.integers(0, 9)),
    st.builds(change, st.just("gpu_used_bytes"), st.none() | st.integers(0, 40)),
    st.builds(change, st.just("steps_per_s"), st.sampled_from([0.0, 0.01, 1.0])),
    st.builds(change, st.just("fails"), st.booleans()),
    st.builds(change, st.just("pause_s"), st.floats(0, 100)),
    st.builds(change, st.just("duration_s"), st.floats(0, 200)),
    st.builds(measure, st.sampled_from("ab"), st.floats()),
    st.builds(resume, st.none() | st.integers(0, 300), st.none() | st.integers(0, 9)),
    st.just(ask),
)
courses = st.lists(events, max_size=30)


@given(policies, courses)
def test_snapshots_keep_their_distance_unless_one_is_asked_for(policy: Policy, course: list[Event]) -> None:
    job = Supervised(policy)
    for event in course:
        before = len(job.snapshots)
        saved, since_s, failures = job.history.saved, job.history.since_s, job.history.failures
        spacing_s = max(policy.min_interval_s, overhead_spacing_s(policy, job.history)) if saved else 0.0
        event(job)
        for snapshot in job.snapshots[before:]:
            if snapshot.note.startswith("asked for"):
                continue
            assert snapshot.began_s >= since_s + spacing_s - 0.01
            assert failures is None or snapshot.began_s >= failures.last_s + retry_after_s(failures.count) - 0.01


@given(policies, courses, st.booleans())
def test_there_are_never_two_at_once(policy: Policy, course: list[Event], requested: bool) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
        assert not job.look(Request.FILE if requested else None, under_way=True).due


@given(policies, courses, st.sampled_from(Request))
def test_a_request_is_always_granted(policy: Policy, course: list[Event], request: Request) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
    assert job.look(request).due


@settings(deadline=None)
@given(policies, timed, courses)
def test_an_interval_in_time_always_fires_in_the_end(
    policy: Policy, interval: EverySeconds | EveryAuto, course: list[Event]
) -> None:
    job = Supervised(replace(policy, every=(*policy.every, interval)))
    for event in course:
        event(job)
    # From here on the job works, and snapshots succeed; its GPU memory is never stable.
    job.fails, job.steps_per_s = False, 1.0
    good = sum(snapshot.good for snapshot in job.snapshots)
    interval_s = interval.seconds if isinstance(interval, EverySeconds) else auto_interval_s(interval, job.history)
    spacing_s = max(policy.min_interval_s, overhead_spacing_s(policy, job.history))
    limit_s = policy.when_gpu_stable.limit_s if policy.when_gpu_stable else 0.0
    end_s = job.now_s + max(interval_s, spacing_s, 1800.0) + limit_s + 200
    tick_s = (end_s - job.now_s) / 200
    while job.now_s <= end_s + 2 * tick_s:
        job.gpu_used_bytes = None if job.gpu_used_bytes is None else 1000 - job.gpu_used_bytes
        job.pass_time(tick_s, tick_s)
    assert sum(snapshot.good for snapshot in job.snapshots) > good


@given(policies.map(lambda policy: replace(policy, when_gpu_stable=None)), courses)
def test_what_is_foretold_comes_true(policy: Policy, course: list[Event]) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
    outlook = job.look().outlook
    if outlook.in_s is None:
        assert not job.decision.due
        return
    assert job.decision.due == (outlook.in_s == 0)
    # The step moves on, or else the job seems to hang; but by one step only.
    job.now_s += outlook.in_s * 0.99 - 0.01
    if outlook.in_s > 0.1:
        assert not job.look().due
    job.now_s += outlook.in_s * 0.01 + 0.01
    job.step = None if job.step is None else job.step + 1
    assert job.look().due


@given(st.integers(1, 200), st.integers(0, 1000), st.floats(0.5, 20))
def test_each_multiple_of_the_steps_is_passed_with_one_snapshot(steps: int, begin: int, tick_s: float) -> None:
    job = Supervised(Policy(every=(EverySteps(steps),)), step=float(begin), duration_s=0.0)
    job.pass_time(600, tick_s)
    multiples = [step // steps for step in job.steps() if step is not None]
    assert multiples == sorted(set(multiples))
    assert job.step is not None
    passed = range(begin // steps + 1, int(job.step) // steps + 1)
    # Of those that lie between two looks only the last one counts.
    assert set(multiples) == set(passed) if tick_s <= steps else set(multiples) <= set(passed)


@given(policies, courses)
def test_a_history_survives_as_json(policy: Policy, course: list[Event]) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
        job.history = told(job.history, job.decision.alerts)
    read = recalled(codec.decode(Kept, codec.loads(codec.dumps(kept(job.history, "boot")))), "boot", job.now_s)
    assert read == replace(job.history, gpu=(), gpu_waiting_s=None)
    # And it does not grow without end.
    assert len(read.told) <= 32
    assert len(read.bests) <= 64
    assert len(read.costs) <= 8


@given(policies, courses)
def test_there_is_always_something_to_say(policy: Policy, course: list[Event]) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
        decision = job.look()
        assert decision.outlook.words
        assert bool(decision.note) == bool(decision.reasons)
        assert not (decision.due and decision.waits_for)
        assert decision.due or not decision.reasons or decision.waits_for
        assert all(alert.words for alert in decision.alerts)
        assert len({alert.code for alert in decision.alerts}) == len(decision.alerts)
        assert all(line.endswith((".", "?")) for line in explain(policy, job.history))


@given(policies, courses)
def test_only_better_values_are_ever_remembered(policy: Policy, course: list[Event]) -> None:
    job = Supervised(policy)
    for event in course:
        event(job)
        for rule in policy.on_best:
            values = [best.value for best in job.history.bests if best.metric == rule.metric]
            assert all(math.isfinite(value) for value in values)
            assert values == sorted(set(values), reverse=rule.mode is Mode.MIN)
