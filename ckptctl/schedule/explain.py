"""A policy in words for people, with the numbers that are known by now."""

from __future__ import annotations

from collections.abc import Iterator

from ckptctl.schedule.history import History
from ckptctl.schedule.intervals import LEAST_AUTO_S, auto_interval_s, daly_interval_s, mean_pause_s, overhead_spacing_s
from ckptctl.schedule.policy import ASSUMED_MTBF_S, EveryAuto, Policy
from ckptctl.schedule.wording import brief, interval_words
from ckptctl.store.best import Mode
from ckptctl.units import format_size


def explain(policy: Policy, history: History) -> tuple[str, ...]:
    """Sentences: when snapshots are taken, what they wait for, and how `auto` came to its interval."""
    if not policy.has_triggers:
        return ("Snapshots are taken only when they are asked for.",)
    return (*_triggers(policy, history), *_conditions(policy, history))


def _triggers(policy: Policy, history: History) -> Iterator[str]:
    for interval in policy.every:
        if isinstance(interval, EveryAuto):
            yield from _auto(interval, history)
        else:
            yield f"A snapshot {interval_words(interval)}."
    if policy.first_after_s is not None:
        yield f"A first snapshot {brief(policy.first_after_s)} after the start, where there is none before."
    if policy.at_epoch_end:
        yield "A snapshot at the end of each epoch."
    for rule in policy.on_best:
        extreme = "lower" if rule.mode is Mode.MIN else "higher"
        yield f"A snapshot when {rule.metric} is {extreme} than at any snapshot before."


def _auto(interval: EveryAuto, history: History) -> Iterator[str]:
    mtbf_s, pause_s = interval.mtbf_s or ASSUMED_MTBF_S, mean_pause_s(history)
    chosen_s = auto_interval_s(interval, history)
    said = "as you say (--mtbf)" if interval.mtbf_s else "which is assumed; say what is known with --mtbf"
    yield f"auto: an interruption comes every {brief(mtbf_s)} on average, {said}."
    if pause_s is None:
        yield f"auto: what a snapshot costs is not known yet; the first one, {brief(chosen_s)} from the start, tells."
        return
    count = len(history.costs)
    measured = "as measured once" if count == 1 else f"the mean of the last {count}"
    yield f"auto: a snapshot stops the job for {brief(pause_s)}, {measured}."
    best_s = daly_interval_s(pause_s, mtbf_s)
    raised = f", raised to {brief(LEAST_AUTO_S)}, which is the least" if chosen_s > best_s else ""
    yield f"auto: the least time is lost with a snapshot every {brief(best_s)} (Young, Daly){raised}."
    share = 100 * pause_s / (pause_s + chosen_s)
    lost = brief(chosen_s / 2)
    yield f"auto: pauses then take {share:.2g}% of the time, and an interruption loses {lost} of work on average."


def _conditions(policy: Policy, history: History) -> Iterator[str]:
    if policy.min_interval_s:
        yield f"At least {brief(policy.min_interval_s)} from the end of one snapshot to the next."
    if policy.max_overhead is not None:
        spacing_s = overhead_spacing_s(policy, history)
        now = f": at present {brief(spacing_s)} between snapshots at least" if spacing_s else ""
        yield f"Pauses take no more than {policy.max_overhead * 100:g}% of the time{now}."
    if rule := policy.when_gpu_stable:
        yield (
            f"A snapshot waits until GPU memory has varied by no more than {format_size(rule.tolerance_bytes)} for "
            f"{brief(rule.window_s)}, but no longer than {brief(rule.limit_s)}."
        )
