"""What makes a snapshot due, each trigger by itself: why it is due now, or when it will be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ckptctl.schedule.history import History, is_better
from ckptctl.schedule.intervals import auto_interval_s
from ckptctl.schedule.observation import Observation, Request
from ckptctl.schedule.policy import EveryAuto, EveryEpochs, EverySeconds, EverySteps, Interval, Policy
from ckptctl.schedule.wording import brief, interval_words, since_words
from ckptctl.store.best import BestBy, Mode

# Sums of floating-point numbers: what is a millisecond away has come.
TICK_S: Final = 0.001


class Trigger(StrEnum):
    """What kind of thing made a snapshot due."""

    REQUEST = "request"
    TIME = "time"
    STEPS = "steps"
    EPOCHS = "epochs"
    FIRST = "first"
    BEST = "best"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a snapshot is due, in words for the manifest, the log and `status`."""

    trigger: Trigger
    words: str


@dataclass(frozen=True, slots=True)
class Prospect:
    """One trigger at one moment: `reason` where it is due, else what it waits for."""

    reason: Reason | None = None
    at_s: float | None = None
    step: int | None = None
    epoch: int | None = None
    event: str | None = None


_REQUESTS: Final = {
    Request.FILE: "asked for by a file",
    Request.SIGNAL: "asked for by a signal",
    Request.NOTICE: "the machine is about to be taken away",
}


def request_reason(request: Request) -> Reason:
    """The reason of a snapshot that somebody wants now."""
    return Reason(Trigger.REQUEST, _REQUESTS[request])


def prospects(policy: Policy, history: History, observation: Observation) -> Iterator[Prospect]:
    """Every trigger of the policy."""
    for interval in policy.every:
        yield _interval(interval, history, observation)
    if policy.first_after_s is not None and not history.saved:
        yield _first(policy.first_after_s, history, observation)
    if policy.at_epoch_end:
        yield _epoch_end(history, observation)
    for rule in policy.on_best:
        yield _best(rule, history, observation)


def _interval(interval: Interval, history: History, observation: Observation) -> Prospect:
    match interval:
        case EverySteps(steps):
            return _every_steps(steps, history.step, observation.progress.step)
        case EveryEpochs(epochs):
            return _every_epochs(epochs, history.epoch, observation.progress.epoch)
        case EverySeconds(seconds):
            return _timed(seconds, interval_words(interval), history, observation)
        case EveryAuto():
            seconds = auto_interval_s(interval, history)
            return _timed(seconds, f"auto, every {brief(seconds)}", history, observation)


def _every_steps(steps: int, counted_from: int | None, step: int | None) -> Prospect:
    """Multiples of `steps` that were passed, not steps since the last snapshot: a late one does not shift the next."""
    base = step if counted_from is None else counted_from
    if base is None:
        return Prospect(event="once its step is known")
    if step is not None and step // steps > base // steps:
        return Prospect(Reason(Trigger.STEPS, f"{interval_words(EverySteps(steps))}: step {step}"))
    return Prospect(step=(base // steps + 1) * steps)


def _every_epochs(epochs: int, counted_from: int | None, epoch: int | None) -> Prospect:
    base = epoch if counted_from is None else counted_from
    if base is None:
        return Prospect(event="once its epoch is known")
    if epoch is not None and epoch // epochs > base // epochs:
        return Prospect(Reason(Trigger.EPOCHS, f"{interval_words(EveryEpochs(epochs))}: epoch {epoch}"))
    return Prospect(epoch=(base // epochs + 1) * epochs)


def _timed(seconds: float, words: str, history: History, observation: Observation) -> Prospect:
    at_s = history.since_s + seconds
    if at_s - observation.now_s > TICK_S:
        return Prospect(at_s=at_s)
    elapsed = brief(observation.now_s - history.since_s)
    return Prospect(Reason(Trigger.TIME, f"{words}: {elapsed} {since_words(history)}"))


def _first(after_s: float, history: History, observation: Observation) -> Prospect:
    at_s = history.started_s + after_s
    if at_s - observation.now_s > TICK_S:
        return Prospect(at_s=at_s)
    return Prospect(Reason(Trigger.FIRST, f"the first snapshot, {brief(after_s)} after the start"))


def _epoch_end(history: History, observation: Observation) -> Prospect:
    epoch, base = observation.progress.epoch, history.epoch
    if epoch is None or base is None:
        return Prospect(event="at the end of an epoch, once its epoch is known")
    if epoch > base:
        return Prospect(Reason(Trigger.EPOCHS, f"the end of an epoch: from {base} to {epoch}"))
    return Prospect(epoch=base + 1)


def _best(rule: BestBy, history: History, observation: Observation) -> Prospect:
    best = history.best(rule)
    value = observation.progress.metrics.get(rule.metric)
    if value is not None and is_better(rule, value, best):
        compared = "the first value" if best is None else f"before it was {best:g}"
        return Prospect(Reason(Trigger.BEST, f"{rule.metric} is best: {value:g}, {compared}"))
    if best is None:
        return Prospect(event=f"once {rule.metric} is known")
    return Prospect(event=f"when {rule.metric} is {'below' if rule.mode is Mode.MIN else 'above'} {best:g}")
