"""When snapshots are wanted, as frozen data. Durations are seconds of the job's own time (see observation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ckptctl.store.best import BestBy

# One interruption a day: on a single machine it is preemption, time limits and people that end jobs, hardly the
# hardware, which alone would allow intervals of half a day.
ASSUMED_MTBF_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class EverySteps:
    """Each time the step passes a multiple of `steps`."""

    steps: int


@dataclass(frozen=True, slots=True)
class EveryEpochs:
    """Each time the epoch passes a multiple of `epochs`."""

    epochs: int


@dataclass(frozen=True, slots=True)
class EverySeconds:
    """This long after the end of the last snapshot."""

    seconds: float


@dataclass(frozen=True, slots=True)
class EveryAuto:
    """As often as loses the least time, when the job is interrupted every `mtbf_s` on average.

    None where nobody said how often that is; ASSUMED_MTBF_S then.
    """

    mtbf_s: float | None = None


Interval = EverySteps | EveryEpochs | EverySeconds | EveryAuto


@dataclass(frozen=True, slots=True)
class GpuStable:
    """The job's GPU memory varied by no more than `tolerance_bytes` over the last `window_s`.

    A snapshot that is due waits for that, but no longer than `limit_s`.
    """

    tolerance_bytes: int = 64 << 20
    window_s: float = 10.0
    limit_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The triggers, any of which makes a snapshot due, and the conditions, all of which it waits for."""

    every: tuple[Interval, ...] = ()
    first_after_s: float | None = None
    at_epoch_end: bool = False
    on_best: tuple[BestBy, ...] = ()
    when_gpu_stable: GpuStable | None = None
    min_interval_s: float = 0.0
    max_overhead: float | None = None  # the share of time that the job may stand still: 0.05 for 5 %

    @property
    def has_triggers(self) -> bool:
        """Whether snapshots are ever due without being asked for."""
        return bool(self.every or self.on_best or self.at_epoch_end or self.first_after_s is not None)
