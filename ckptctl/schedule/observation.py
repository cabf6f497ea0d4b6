"""What is seen of a job at one moment.

Times are seconds on CLOCK_MONOTONIC (`time.monotonic()`), and on no other clock. It cannot be set, so that steps of
the wall clock do not matter; all processes of one boot share it, so that one supervisor can go on where another
ended; and it stands still while the machine sleeps, as the job does: an interval of 30 minutes is to bound the work
that can be lost, and no work is done in sleep. On CLOCK_BOOTTIME every job would be dumped in the moment of waking up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ckptctl.store.manifest import Progress


class Request(StrEnum):
    """Who wants a snapshot now, whatever the schedule says."""

    FILE = "file"
    SIGNAL = "signal"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Observation:
    """The job now.

    `progress.metrics` has the newest value of each metric, also of one that was not measured again since.
    `gpu_used_bytes` is the GPU memory of all its processes, 0 where it has none yet, None where that cannot be told.
    `requested` stands until a snapshot begins; whoever begins it takes the request away, or each failure would be
    followed by the next attempt at once. `under_way` says that a snapshot of this job is being taken, by whomever.
    """

    now_s: float
    progress: Progress = field(default_factory=Progress)
    gpu_used_bytes: int | None = None
    requested: Request | None = None
    under_way: bool = False
