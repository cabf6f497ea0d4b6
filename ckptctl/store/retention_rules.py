"""Each rule as a function: from the snapshots that count for it, oldest first, to the ones that it keeps, and why.

Damaged snapshots and those dated in the future do not count, so that they never take the place of a sound one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from ckptctl.store.best import best_first
from ckptctl.store.retention import ALL, Retention
from ckptctl.store.retention_verdict import Condition, Facts, Reason, Rule
from ckptctl.units import format_duration

Kept = Iterator[tuple[str, Reason]]

# Under any policy and any limit.
PROTECTING: Final = frozenset(
    {
        Rule.LATEST, Rule.BACKUP, Rule.BEST, Rule.PINNED, Rule.NEWEST_SOUND, Rule.NEWEST_VERIFIED, Rule.IN_USE,
        Rule.FUTURE, Rule.LABELS_UNKNOWN, Rule.TOO_NEW,
    }
)  # fmt: skip


def reasons(policy: Retention, ordered: Sequence[Facts], now: datetime) -> dict[str, tuple[Reason, ...]]:
    """Why each snapshot is kept, by id; nothing for one that no rule keeps. `ordered` begins with the oldest."""
    found: dict[str, list[Reason]] = {facts.id: [] for facts in ordered}
    counting = [facts for facts in ordered if facts.condition is Condition.SOUND and facts.created <= now]
    for facts in ordered:
        found[facts.id] += _of_itself(facts, now)
    for rule in (_newest, _last, _within, _hourly, _daily, _weekly, _every_steps, _epochs, _best, _tagged):
        for snapshot_id, reason in rule(policy, counting):
            found[snapshot_id].append(reason)
    for facts in counting if not policy.has_rules else ():
        found[facts.id].append(Reason(Rule.NO_RULES, "no rule says what to keep"))
    return {snapshot_id: tuple(listed) for snapshot_id, listed in found.items()}


def _of_itself(facts: Facts, now: datetime) -> Iterator[Reason]:
    """The reasons that need no other snapshot."""
    if facts.is_latest:
        yield Reason(Rule.LATEST, "latest")
    if facts.is_backup:
        yield Reason(Rule.BACKUP, "backup")
    if facts.is_best:
        yield Reason(Rule.BEST, "best")
    if facts.pinned:
        yield Reason(Rule.PINNED, "pinned")
    if facts.in_use:
        yield Reason(Rule.IN_USE, "needed by an action that was cut off: see `ckptctl recover`")
    if facts.created > now:
        yield Reason(Rule.FUTURE, "dated in the future")
    if not facts.labels_known:
        yield Reason(Rule.LABELS_UNKNOWN, "its labels cannot be read: it may be pinned")
    if facts.condition is Condition.TOO_NEW:
        yield Reason(Rule.TOO_NEW, "written by a later ckptctl")
    if facts.condition is Condition.DAMAGED:
        yield Reason(Rule.DAMAGED, "damaged, counts for no rule")


def _newest(_policy: Retention, counting: Sequence[Facts]) -> Kept:
    """What no policy may take away: something that can be restored, and something that is known to be restorable."""
    if counting and not counting[-1].is_latest:
        yield counting[-1].id, Reason(Rule.NEWEST_SOUND, "newest sound one")
    verified = [facts for facts in counting if facts.verified]
    if verified:
        yield verified[-1].id, Reason(Rule.NEWEST_VERIFIED, "newest verified one")


def _last(policy: Retention, counting: Sequence[Facts]) -> Kept:
    for place, facts in _newest_first(counting, policy.keep_last):
        yield facts.id, Reason(Rule.KEEP_LAST, f"last {_of(place, policy.keep_last)}", place)


def _within(policy: Retention, counting: Sequence[Facts]) -> Kept:
    """Counted from the newest snapshot, not from now: a run that rests does not lose its snapshots one by one."""
    if policy.keep_within_s is None or not counting:
        return
    newest = counting[-1].created
    for facts in counting:
        if (newest - facts.created).total_seconds() <= policy.keep_within_s:
            yield facts.id, Reason(Rule.KEEP_WITHIN, f"within {format_duration(policy.keep_within_s)} of the newest")


def _hourly(policy: Retention, counting: Sequence[Facts]) -> Kept:
    return _periodic(Rule.KEEP_HOURLY, policy.keep_hourly, counting, lambda when: f"hour {when:%Y-%m-%d %H}:00 UTC")


def _daily(policy: Retention, counting: Sequence[Facts]) -> Kept:
    return _periodic(Rule.KEEP_DAILY, policy.keep_daily, counting, lambda when: f"day {when:%Y-%m-%d} UTC")


def _weekly(policy: Retention, counting: Sequence[Facts]) -> Kept:
    return _periodic(Rule.KEEP_WEEKLY, policy.keep_weekly, counting, lambda when: f"week {when:%G-W%V} UTC")


def _periodic(rule: Rule, count: int | None, counting: Sequence[Facts], name: Callable[[datetime], str]) -> Kept:
    """The newest snapshot of each period, of the newest `count` periods that have one. UTC: the same on every host."""
    newest: dict[str, Facts] = {}
    for facts in counting:
        newest[name(facts.created.astimezone(UTC))] = facts
    periods = {facts.id: period for period, facts in newest.items()}
    for place, facts in _newest_first(list(newest.values()), count):
        yield facts.id, Reason(rule, periods[facts.id], place)


def _epochs(policy: Retention, counting: Sequence[Facts]) -> Kept:
    """The last snapshot of each epoch, of the epochs that were seen last. The one under way counts as one of them."""
    last: dict[int, Facts] = {}
    for facts in counting:
        if facts.epoch is not None:
            last[facts.epoch] = facts
    for place, facts in _newest_first(list(last.values()), policy.keep_epochs):
        yield facts.id, Reason(Rule.KEEP_EPOCHS, f"epoch {facts.epoch}", place)


def _every_steps(policy: Retention, counting: Sequence[Facts]) -> Kept:
    """The snapshot nearest to each multiple of the interval that training has reached: whatever the snapshots' own
    interval is, the ones that stay do not drift away from the grid. Of two equally near the earlier.
    """
    interval = policy.keep_every_steps
    if interval is None:
        return
    newest = {facts.step: facts for facts in counting if facts.step is not None}
    steps = sorted(newest)
    for position, step in enumerate(steps):
        before = steps[position - 1] if position else None
        after = steps[position + 1] if position + 1 < len(steps) else step
        grid = _nearest_multiple(step, interval, low=None if before is None else before + step, high=step + after)
        if grid is not None:
            yield newest[step].id, Reason(Rule.KEEP_EVERY_STEPS, f"nearest to step {grid}")


def _nearest_multiple(step: int, interval: int, *, low: int | None, high: int) -> int | None:
    """The multiple (1 or more) nearest to `step` of those whose double is more than `low` and at most `high`."""
    below = step // interval * interval
    multiples = [
        multiple
        for multiple in (below, below + interval)
        if multiple > 0 and (low is None or 2 * multiple > low) and 2 * multiple <= high
    ]
    return min(multiples, key=lambda multiple: abs(multiple - step), default=None)


def _best(policy: Retention, counting: Sequence[Facts]) -> Kept:
    if policy.keep_best is None or policy.best_by is None:
        return
    metric = policy.best_by.metric
    ranked = best_first(policy.best_by, [facts.measured for facts in counting])
    for place, measured in enumerate(ranked[: policy.keep_best], 1):
        yield measured.id, Reason(Rule.KEEP_BEST, f"best {place} by {metric} = {measured.value(metric):g}", place)


def _tagged(policy: Retention, counting: Sequence[Facts]) -> Kept:
    for facts in counting:
        for tag in sorted(facts.tags.intersection(policy.keep_tags)):
            yield facts.id, Reason(Rule.KEEP_TAG, f"tag {tag}")


def _newest_first(counting: Sequence[Facts], count: int | None) -> Iterator[tuple[int, Facts]]:
    """The newest `count` with their places from 1; none where there is no such rule."""
    newest = sorted(counting, key=lambda facts: (facts.created, facts.id), reverse=True)
    return enumerate(newest[: count or 0], 1)


def _of(place: int, count: int | None) -> str:
    return str(place) if count is None or count == ALL else f"{place} of {count}"
