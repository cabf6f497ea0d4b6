"""What holds for every policy on every run: nothing goes that must stay, and the same question has the same answer."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from ckptctl.store.best import BestBy, Mode, best_first
from ckptctl.store.retention import ALL, MinFree, Retention
from ckptctl.store.retention_judge import judge
from ckptctl.store.retention_verdict import Condition, Disk, Facts, Judgement, Reason, Rule

NOW: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
METRICS: Final = ("val_loss", "acc")

counts = st.none() | st.integers(1, 6) | st.just(ALL)
values = st.sampled_from([0.25, 0.5, 1.0, 2.0, float("nan"), float("inf"), float("-inf")])


@st.composite
def facts(draw: st.DrawFn, number: int) -> Facts:
    return Facts(
        id=f"s{number}",
        # Some at the same moment, some in the future.
        created=NOW - timedelta(minutes=draw(st.integers(-2000, 40_000)) // 7 * 7),
        size_bytes=draw(st.integers(0, 100)),
        condition=draw(st.sampled_from([Condition.SOUND] * 4 + [Condition.DAMAGED, Condition.TOO_NEW])),
        step=draw(st.none() | st.integers(0, 200)),
        epoch=draw(st.none() | st.integers(0, 5)),
        metrics=draw(st.dictionaries(st.sampled_from(METRICS), values)),
        metric_steps=draw(st.dictionaries(st.sampled_from(METRICS), st.integers(0, 200))),
        tags=frozenset(draw(st.lists(st.sampled_from(["a", "b"]), max_size=2))),
        pinned=draw(st.sampled_from([False, False, False, True])),
        verified=draw(st.booleans()),
        in_use=draw(st.sampled_from([False, False, False, True])),
        labels_known=draw(st.sampled_from([True, True, True, False])),
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Facts]:
    run = [draw(facts(number)) for number in range(draw(st.integers(0, 10)))]
    for flag in ("is_latest", "is_backup", "is_best"):
        which = draw(st.none() | st.integers(0, len(run) - 1)) if run else None
        for number, one in enumerate(run):
            changes: dict[str, Any] = {flag: number == which}
            run[number] = dataclasses.replace(one, **changes)
    return run


@st.composite
def rules(draw: st.DrawFn) -> Retention:
    keep_best = draw(counts)
    return Retention(
        keep_last=draw(counts),
        keep_within_s=draw(st.none() | st.floats(1, 3e6)),
        keep_hourly=draw(counts),
        keep_daily=draw(counts),
        keep_weekly=draw(counts),
        keep_every_steps=draw(st.none() | st.integers(1, 300)),
        keep_epochs=draw(counts),
        keep_best=keep_best,
        best_by=None if keep_best is None else BestBy(draw(st.sampled_from(METRICS)), draw(st.sampled_from(Mode))),
        keep_tags=tuple(draw(st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True))),
    )


@st.composite
def limited(draw: st.DrawFn) -> Retention:
    return dataclasses.replace(
        draw(rules()),
        max_size_bytes=draw(st.none() | st.integers(1, 800)),
        min_free=draw(
            st.none()
            | st.builds(MinFree, size_bytes=st.integers(1, 800))
            | st.builds(MinFree, percent=st.floats(1, 99))
        ),
    )


disks = st.builds(Disk, free_bytes=st.integers(0, 1000), total_bytes=st.just(1000))


def removed(judgement: Judgement) -> set[str]:
    return {verdict.id for verdict in judgement.removed}


def must_stay(policy: Retention, run: list[Facts]) -> set[str]:
    """Written anew from the promise, not from the code."""
    ordered = sorted(run, key=lambda one: (one.created, one.id))
    there = [one for one in ordered if one.condition is Condition.SOUND and one.created <= NOW]
    stay = {one.id for one in run if one.is_latest or one.is_backup or one.is_best or one.pinned or one.in_use}
    stay |= {one.id for one in run if one.created > NOW or not one.labels_known}
    stay |= {one.id for one in run if one.condition is Condition.TOO_NEW}
    stay |= {one.id for one in there[-1:]}
    stay |= {one.id for one in [one for one in there if one.verified][-1:]}
    if policy.best_by is not None:
        by = policy.best_by
        finite = [
            (one.metrics[by.metric], one)
            for one in there
            if abs(one.metrics.get(by.metric, float("nan"))) < float("inf")
            and (one.step is None or one.metric_steps.get(by.metric, 0) <= one.step)
        ]
        if finite:
            top = (min if by.mode is Mode.MIN else max)(value for value, _ in finite)
            stay.add(next(one.id for value, one in finite if value == top))
    return stay


@given(limited(), runs(), disks)
def test_what_must_stay_stays(policy: Retention, run: list[Facts], disk: Disk) -> None:
    judgement = judge(policy, run, now=NOW, disk=disk)
    assert removed(judgement).isdisjoint(must_stay(policy, run))
    assert [verdict.facts for verdict in judgement.verdicts] == sorted(run, key=lambda one: (one.created, one.id))


@given(limited(), runs(), disks)
def test_a_run_with_a_sound_snapshot_keeps_one(policy: Retention, run: list[Facts], disk: Disk) -> None:
    def sound(snapshots: list[Facts]) -> bool:
        return any(one.condition is Condition.SOUND for one in snapshots)

    kept = [verdict.facts for verdict in judge(policy, run, now=NOW, disk=disk).kept]
    assert sound(kept) == sound(run)


@given(limited(), runs(), disks, st.randoms(use_true_random=False))
def test_the_order_of_the_snapshots_does_not_matter(
    policy: Retention, run: list[Facts], disk: Disk, shuffler: random.Random
) -> None:
    mixed = list(run)
    shuffler.shuffle(mixed)
    assert judge(policy, mixed, now=NOW, disk=disk) == judge(policy, run, now=NOW, disk=disk)


@given(limited(), runs(), disks)
def test_doing_it_twice_is_doing_it_once(policy: Retention, run: list[Facts], disk: Disk) -> None:
    first = judge(policy, run, now=NOW, disk=disk)
    left = [verdict.facts for verdict in first.kept]
    freed = Disk(disk.free_bytes + first.freed_bytes, disk.total_bytes)
    second = judge(policy, left, now=NOW, disk=freed)
    assert removed(second) == set()
    assert bool(second.unmet) == bool(first.unmet)


@given(rules(), rules(), runs())
def test_a_further_rule_never_removes_more(one: Retention, other: Retention, run: list[Facts]) -> None:
    """Rules are ORed: together they keep what each keeps, in whatever order they were given."""
    if not one.has_rules or not other.has_rules:
        return
    names = [field.name for field in dataclasses.fields(Retention) if getattr(one, field.name) in (None, ())]
    if one.best_by is None and other.best_by is not None:
        names.append("best_by")
    both = dataclasses.replace(one, **{name: getattr(other, name) for name in names})
    added = dataclasses.replace(Retention(), **{name: getattr(other, name) for name in names})
    alone, together = judge(one, run, now=NOW), judge(both, run, now=NOW)
    assert removed(together) <= removed(alone)
    if added.has_rules:
        assert removed(together) == removed(alone) & removed(judge(added, run, now=NOW))


@given(rules(), runs(), st.integers(1, 5))
def test_keeping_more_of_the_last_never_removes_more(policy: Retention, run: list[Facts], more: int) -> None:
    fewer = dataclasses.replace(policy, keep_last=1)
    greater = dataclasses.replace(policy, keep_last=1 + more)
    assert removed(judge(greater, run, now=NOW)) <= removed(judge(fewer, run, now=NOW))


@given(limited(), runs(), disks)
def test_every_verdict_says_why(policy: Retention, run: list[Facts], disk: Disk) -> None:
    removing = {Rule.UNKEPT, Rule.MAX_SIZE, Rule.MIN_FREE}
    for verdict in judge(policy, run, now=NOW, disk=disk).verdicts:
        assert verdict.reasons
        assert all(reason.text for reason in verdict.reasons)
        assert verdict.kept == removing.isdisjoint(reason.rule for reason in verdict.reasons)


@given(limited(), runs(), disks)
def test_a_limit_is_met_or_said_not_to_be(policy: Retention, run: list[Facts], disk: Disk) -> None:
    judgement = judge(policy, run, now=NOW, disk=disk)
    kept = sum(verdict.facts.size_bytes for verdict in judgement.kept)
    met = [
        policy.max_size_bytes is None or kept <= policy.max_size_bytes,
        policy.min_free is None
        or disk.free_bytes + judgement.freed_bytes >= policy.min_free.wanted_bytes(disk.total_bytes),
    ]
    assert len(judgement.unmet) == met.count(False)
    if judgement.unmet:
        expendable = {Rule.KEEP_LAST, Rule.KEEP_WITHIN, Rule.KEEP_HOURLY, Rule.KEEP_DAILY, Rule.KEEP_WEEKLY}
        for verdict in judgement.kept:
            assert {reason.rule for reason in verdict.reasons} - expendable, "what no promise protects is still there"


@given(rules(), runs())
def test_damaged_and_future_snapshots_change_nothing_for_the_others(policy: Retention, run: list[Facts]) -> None:
    there = [one for one in run if one.condition is Condition.SOUND and one.created <= NOW]

    def said(judgement: Judgement) -> dict[str, tuple[Reason, ...]]:
        return {verdict.id: verdict.reasons for verdict in judgement.verdicts if verdict.facts in there}

    assert said(judge(policy, run, now=NOW)) == said(judge(policy, there, now=NOW))


@given(st.integers(1, 12), st.lists(st.integers(0, 80), unique=True, min_size=1))
def test_every_grid_point_has_its_nearest_snapshot(interval: int, steps: list[int]) -> None:
    run = [Facts(f"s{step}", NOW - timedelta(days=2) + timedelta(seconds=step), step=step) for step in steps]
    kept = {
        verdict.facts.step
        for verdict in judge(Retention(keep_every_steps=interval), run, now=NOW).verdicts
        if any(reason.rule is Rule.KEEP_EVERY_STEPS for reason in verdict.reasons)
    }
    grid = range(interval, max(steps) + 1, interval)
    assert kept == {min(steps, key=lambda step: (abs(step - point), step)) for point in grid}


@given(runs(), st.sampled_from(Mode))
def test_the_best_come_in_order_and_are_finite(run: list[Facts], mode: Mode) -> None:
    ranked = [measured.value("acc") for measured in best_first(BestBy("acc", mode), [one.measured for one in run])]
    numbers = [value for value in ranked if value is not None]
    assert len(numbers) == len(ranked)
    assert numbers == sorted(numbers, reverse=mode is Mode.MAX)
