"""A history as a record for `store.codec`, for the supervisor that comes after this one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from ckptctl.schedule.history import History


@dataclass(frozen=True, slots=True)
class Kept:
    """A history that outlives its supervisor."""

    boot_id: Annotated[str, "the boot on whose CLOCK_MONOTONIC the times are"]
    history: Annotated[History, "what the schedule remembers"]

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, _times(self.history))):
            raise ValueError("a time is not a number")


def kept(history: History, boot_id: str) -> Kept:
    """What is written down. Samples of GPU memory are left out: soon they say nothing any more."""
    return Kept(boot_id, replace(history, gpu=(), gpu_waiting_s=None))


def recalled(written: Kept, boot_id: str, now_s: float) -> History:
    """The history, its times on the clock of this boot.

    Times of another boot mean nothing here: intervals then begin now.
    """
    same_clock = written.boot_id == boot_id and max(_times(written.history)) <= now_s
    return written.history if same_clock else _from_now(written.history, now_s)


def _times(history: History) -> tuple[float, ...]:
    failed = (history.failures.last_s,) if history.failures else ()
    return (history.started_s, history.since_s, history.moved_s, *failed)


def _from_now(history: History, now_s: float) -> History:
    failures = replace(history.failures, last_s=now_s) if history.failures else None
    return replace(history, started_s=now_s, since_s=now_s, moved_s=now_s, failures=failures, told=())
