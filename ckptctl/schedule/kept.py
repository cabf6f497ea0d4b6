"""A history as JSON, for the supervisor that comes after this one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, cast

from ckptctl.schedule.history import History
from ckptctl.store import codec


@dataclass(frozen=True, slots=True)
class _Kept:
    boot_id: Annotated[str, "the boot on whose CLOCK_MONOTONIC the times are"]
    history: History

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, _times(self.history))):
            raise ValueError("a time is not a number")


def to_json(history: History, boot_id: str) -> dict[str, object]:
    """What the json module writes. Samples of GPU memory are left out: soon they say nothing any more."""
    lasting = replace(history, gpu=(), gpu_waiting_s=None)
    return cast(dict[str, object], codec.encode(_Kept(boot_id, lasting)))


def from_json(raw: object, boot_id: str, now_s: float) -> History:
    """The history, its times on the clock of this boot. Raises codec.Misshapen.

    Times of another boot mean nothing here: intervals then begin now.
    """
    kept = codec.decode(_Kept, raw)
    same_clock = kept.boot_id == boot_id and max(_times(kept.history)) <= now_s
    return kept.history if same_clock else _from_now(kept.history, now_s)


def _times(history: History) -> tuple[float, ...]:
    failed = (history.failures.last_s,) if history.failures else ()
    return (history.started_s, history.since_s, history.moved_s, *failed)


def _from_now(history: History, now_s: float) -> History:
    failures = replace(history.failures, last_s=now_s) if history.failures else None
    return replace(history, started_s=now_s, since_s=now_s, moved_s=now_s, failures=failures, told=())
