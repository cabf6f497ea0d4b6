"""What a snapshot that is due waits for, and what people should hear of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ckptctl.schedule.alerts import Alert, AlertCode, Occasion
from ckptctl.schedule.history import Failures, GpuSample, History
from ckptctl.schedule.intervals import mean_pause_s, overhead_spacing_s
from ckptctl.schedule.observation import Observation
from ckptctl.schedule.policy import EveryEpochs, EverySteps, GpuStable, Policy
from ckptctl.schedule.triggers import TICK_S, Reason, Trigger
from ckptctl.schedule.wording import brief, interval_words
from ckptctl.store.manifest import Progress

_FIRST_RETRY_S: Final = 60.0
_LAST_RETRY_S: Final = 1800.0
# A job may import, compile and load for minutes before it reports anything.
_SILENCE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a snapshot waits: until a moment, or for an event that nobody can date."""

    words: str
    until_s: float | None = None
    event: str | None = None


def time_holds(policy: Policy, history: History) -> Iterator[Hold]:
    """What keeps snapshots apart: the interval at the least, the overhead at the most, and failures."""
    if history.saved:
        yield Hold(
            f"at least {brief(policy.min_interval_s)} between snapshots", history.since_s + policy.min_interval_s
        )
        spacing_s = overhead_spacing_s(policy, history)
        yield Hold(f"{brief(spacing_s)} between snapshots, for their overhead", history.since_s + spacing_s)
    if history.failures:
        until_s = history.failures.last_s + retry_after_s(history.failures.count)
        yield Hold("the last snapshot failed", until_s)


def retry_after_s(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4 minutes, up to half an hour."""
    return min(_LAST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))


def standstill(history: History, observation: Observation, reasons: tuple[Reason, ...]) -> Hold | None:
    """A job that hangs: its step is known and is still that of its last snapshot, and only time has gone by.

    A new epoch or a new metric shows that it lives.
    """
    step = observation.progress.step
    if not history.saved or step is None or step != history.step:
        return None
    if any(reason.trigger is not Trigger.TIME for reason in reasons):
        return None
    return Hold(f"the step is still {step}", event="when the step moves on")


def gpu_hold(policy: Policy, history: History, observation: Observation) -> Hold | None:
    """GPU memory that is not stable yet, up to the limit."""
    rule = policy.when_gpu_stable
    if rule is None or observation.gpu_used_bytes is None or is_stable(rule, history.gpu, observation.now_s):
        return None
    waiting_s = observation.now_s if history.gpu_waiting_s is None else history.gpu_waiting_s
    until_s = waiting_s + rule.limit_s
    if until_s - observation.now_s <= TICK_S:
        return None
    return Hold("GPU memory is not stable yet", until_s, "when GPU memory is stable")


def is_stable(rule: GpuStable, samples: tuple[GpuSample, ...], now_s: float) -> bool:
    """Whether the samples reach over the whole window and lie together within the tolerance."""
    recent = in_window(rule, samples, now_s)
    if not recent or recent[0].at_s > now_s - rule.window_s + TICK_S:
        return False
    sizes = [sample.used_bytes for sample in recent]
    return max(sizes) - min(sizes) <= rule.tolerance_bytes


def in_window(rule: GpuStable, samples: tuple[GpuSample, ...], now_s: float) -> tuple[GpuSample, ...]:
    """The samples of the window, and the last one before it, which says how it began."""
    begin_s = now_s - rule.window_s
    before = [number for number, sample in enumerate(samples) if sample.at_s <= begin_s + TICK_S]
    return samples[before[-1] if before else 0 :]


def gpu_alert(policy: Policy, history: History, observation: Observation) -> Alert | None:
    """Where a snapshot is taken although nobody knows that GPU memory is stable."""
    rule = policy.when_gpu_stable
    if rule is None:
        return None
    if observation.gpu_used_bytes is None:
        words = "GPU memory cannot be read: snapshots do not wait for it to be stable."
        return Alert(Occasion(AlertCode.GPU_UNKNOWN, history.started_s), words)
    if is_stable(rule, history.gpu, observation.now_s) or history.gpu_waiting_s is None:
        return None
    words = f"GPU memory was not stable within {brief(rule.limit_s)}: the snapshot is taken anyway."
    return Alert(Occasion(AlertCode.GPU_UNSTABLE, history.gpu_waiting_s), words)


def failure_alert(failures: Failures, now_s: float) -> Alert:
    """That snapshots fail."""
    which = "The last snapshot" if failures.count == 1 else f"The last {failures.count} snapshots"
    wait_s = failures.last_s + retry_after_s(failures.count) - now_s
    when = f"not before {brief(wait_s)} from now" if wait_s > TICK_S else "when one is due"
    words = f"{which} failed: {failures.message} The next attempt: {when}."
    return Alert(Occasion(AlertCode.SNAPSHOT_FAILED, failures.last_s), words)


def standstill_alert(history: History, observation: Observation) -> Alert:
    """That a snapshot is skipped because the job hangs."""
    still = brief(max(0.0, observation.now_s - history.moved_s))
    words = (
        f"The job seems to hang: its step has been {observation.progress.step} for {still}, as in its last snapshot. "
        "No snapshot is taken until it moves on; a request takes one anyway."
    )
    return Alert(Occasion(AlertCode.NO_PROGRESS, history.moved_s), words)


def overhead_alert(policy: Policy, history: History, now_s: float) -> Alert | None:
    """That a snapshot is put off because snapshots stop the job for too long."""
    spacing_s, pause_s = overhead_spacing_s(policy, history), mean_pause_s(history)
    if pause_s is None or policy.max_overhead is None or history.since_s + spacing_s - now_s <= TICK_S:
        return None
    words = (
        f"A snapshot stops the job for {brief(pause_s)}: for an overhead of at most {policy.max_overhead * 100:g}% "
        f"the next one is put off until {brief(spacing_s)} after the last."
    )
    return Alert(Occasion(AlertCode.OVERHEAD, history.started_s), words)


def silence_alert(policy: Policy, history: History, observation: Observation) -> Alert | None:
    """That a trigger can never be due because nobody knows how far the job is."""
    blind = {
        words: since_s
        for words, since_s in _blind_triggers(policy, history, observation.progress)
        if observation.now_s - since_s >= _SILENCE_S
    }
    if not blind:
        return None
    words = (
        f"Snapshots that are due {', '.join(blind)} are not taken: the job has not said how far it is. "
        "Let it report that, or add an interval in time: --every 30m."
    )
    return Alert(Occasion(AlertCode.PROGRESS_UNKNOWN, max(blind.values())), words)


def _blind_triggers(policy: Policy, history: History, progress: Progress) -> Iterator[tuple[str, float]]:
    """Each trigger whose number is not known, and since when."""
    no_epoch = progress.epoch is None and history.epoch is None
    for interval in policy.every:
        if isinstance(interval, EverySteps) and progress.step is None:
            yield interval_words(interval), history.moved_s
        if isinstance(interval, EveryEpochs) and no_epoch:
            yield interval_words(interval), history.started_s
    if policy.at_epoch_end and no_epoch:
        yield "at the end of an epoch", history.started_s
