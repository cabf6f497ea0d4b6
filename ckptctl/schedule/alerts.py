"""What people should hear of a schedule, and what they have heard already."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AlertCode(StrEnum):
    """What an alert is about; stable, for scripts."""

    SNAPSHOT_FAILED = "snapshot-failed"
    NO_PROGRESS = "no-progress"
    OVERHEAD = "overhead"
    GPU_UNSTABLE = "gpu-unstable"
    GPU_UNKNOWN = "gpu-unknown"
    PROGRESS_UNKNOWN = "progress-unknown"


@dataclass(frozen=True, slots=True)
class Occasion:
    """What tells one alert from the next of its kind: when its cause began."""

    code: AlertCode
    since_s: float


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know. It stands as long as its cause."""

    occasion: Occasion
    words: str

    @property
    def code(self) -> AlertCode:
        return self.occasion.code
