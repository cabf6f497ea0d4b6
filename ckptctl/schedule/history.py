"""What a schedule must remember of a job: an immutable value, and what changes it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from ckptctl.schedule.alerts import Occasion
from ckptctl.schedule.policy import Policy
from ckptctl.store import codec
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.manifest import Progress

# Enough to see through one slow snapshot; few enough to follow a job that grows.
_REMEMBERED_COSTS: Final = 8
_REMEMBERED_BESTS: Final = 32


@dataclass(frozen=True, slots=True)
class Best:
    """A snapshot had a better value of this metric than those before it; `step` is the snapshot's."""

    metric: str
    mode: Mode
    value: float
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one snapshot took: how long the job stood still, and how long it was until the snapshot was complete."""

    pause_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Failures:
    """Snapshots that failed since the last good one."""

    count: Annotated[int, codec.Range(1, 2**31)]
    last_s: float
    message: str


@dataclass(frozen=True, slots=True)
class GpuSample:
    """GPU memory of the job at one moment."""

    at_s: float
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken: when the dump began, when the snapshot was complete, what it says of the progress.

    `pause_s` is how long the job stood still, None where that was not measured.
    """

    began_s: float
    ended_s: float
    progress: Progress
    pause_s: float | None = None


@dataclass(frozen=True, slots=True)
class History:
    """All that decisions depend on, but for the policy and the present moment. Made by `started`.

    Intervals in time are counted from `since_s`: the end of the last snapshot, or when the job was started or resumed.
    Intervals in steps and epochs are counted from `step` and `epoch`: those of the last snapshot, or else the first
    that were seen, or lower ones to which the job has gone back since. `saved`: a snapshot of this job exists.
    """

    started_s: float
    since_s: float
    moved_s: float  # when the step last changed
    saved: bool = False
    step: int | None = None
    epoch: int | None = None
    seen_step: int | None = None
    bests: tuple[Best, ...] = ()
    costs: tuple[Cost, ...] = ()
    failures: Failures | None = None
    gpu: tuple[GpuSample, ...] = ()
    gpu_waiting_s: float | None = None  # since when nothing but GPU memory could hold a snapshot that is due
    told: tuple[Occasion, ...] = ()

    def best(self, rule: BestBy) -> float | None:
        """The best value of this metric that any snapshot has."""
        return next((best.value for best in reversed(self.bests) if _is_of(best, rule)), None)


def started(now_s: float, earlier: History | None = None) -> History:
    """A job that begins, or that is found running and of which no snapshot exists.

    Of an earlier history of the same job, what its snapshots cost is kept.
    """
    return History(now_s, now_s, now_s, costs=earlier.costs if earlier else ())


def resumed(policy: Policy, history: History | None, now_s: float, progress: Progress) -> History:
    """The job goes on from a snapshot, with this progress: what lay behind that has not happened.

    `history` may be missing. The caller sees to it that observations no longer show what was reported before.
    """
    fresh = started(now_s, history)
    bests = _up_to(history.bests if history else (), progress.step)
    fresh = replace(fresh, saved=True, step=progress.step, epoch=progress.epoch, bests=bests)
    return replace(fresh, bests=_with_new_bests(policy, fresh, progress))


def snapshot_ended(policy: Policy, history: History, taken: Taken) -> History:
    """A snapshot is complete, whoever asked for it."""
    costs = history.costs
    if taken.pause_s is not None:
        costs = (*costs, Cost(taken.pause_s, max(0.0, taken.ended_s - taken.began_s)))[-_REMEMBERED_COSTS:]
    return replace(
        history,
        since_s=max(taken.ended_s, history.since_s),
        saved=True,
        step=taken.progress.step,
        epoch=taken.progress.epoch,
        bests=_with_new_bests(policy, history, taken.progress),
        costs=costs,
        failures=None,
        gpu=(),  # being moved to the host and back says nothing about the job
        gpu_waiting_s=None,
    )


def snapshot_failed(history: History, now_s: float, message: str) -> History:
    """A snapshot failed and the job goes on; `message` says why."""
    count = history.failures.count + 1 if history.failures else 1
    return replace(history, failures=Failures(count, now_s, message), gpu=(), gpu_waiting_s=None)


def went_on(history: History, now_s: float, progress: Progress) -> History:
    """The history after the progress was looked at: where counting begins, and whether the step moves."""
    step, epoch = progress.step, progress.epoch
    moved = step is not None and step != history.seen_step
    bests = history.bests
    if step is not None and history.step is not None and step < history.step:
        bests = _up_to(bests, step)
    return replace(
        history,
        step=_lower(history.step, step),
        epoch=_lower(history.epoch, epoch),
        seen_step=history.seen_step if step is None else step,
        moved_s=now_s if moved else history.moved_s,
        bests=bests,
    )


def is_better(rule: BestBy, value: float, best: float | None) -> bool:
    """Whether the value beats the best so far. A tie does not, and what is not a finite number never does."""
    if not math.isfinite(value):
        return False
    return best is None or (value < best if rule.mode is Mode.MIN else value > best)


def _lower(known: int | None, seen: int | None) -> int | None:
    return seen if known is None else known if seen is None else min(known, seen)


def _is_of(best: Best, rule: BestBy) -> bool:
    return best.metric == rule.metric and best.mode is rule.mode


def _up_to(bests: Iterable[Best], step: int | None) -> tuple[Best, ...]:
    return tuple(best for best in bests if step is None or best.step is None or best.step <= step)


def _with_new_bests(policy: Policy, history: History, progress: Progress) -> tuple[Best, ...]:
    bests = history.bests
    for rule in policy.on_best:
        value = progress.metrics.get(rule.metric)
        if value is not None and is_better(rule, value, history.best(rule)):
            own = [best for best in bests if _is_of(best, rule)][-_REMEMBERED_BESTS + 1 :]
            others = [best for best in bests if not _is_of(best, rule)]
            bests = (*others, *own, Best(rule.metric, rule.mode, value, progress.step))
    return bests
