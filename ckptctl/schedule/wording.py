"""How a schedule speaks of durations and of what it counts from."""

from __future__ import annotations

import re

from ckptctl.schedule.history import History
from ckptctl.schedule.policy import EveryAuto, EveryEpochs, EverySeconds, EverySteps, Interval
from ckptctl.units import format_duration


def brief(seconds: float) -> str:
    """The duration without a last part of zero: 30m, 1h, 90m05s."""
    text = format_duration(seconds)
    return re.sub(r"(?<=[dhm])00[hms]$|\.0(?=s$)", "", text)


def interval_words(interval: Interval) -> str:
    """`every 500 steps`, `every 30m`, `every epoch`, `auto`."""
    match interval:
        case EverySteps(steps):
            return "every step" if steps == 1 else f"every {steps} steps"
        case EveryEpochs(epochs):
            return "every epoch" if epochs == 1 else f"every {epochs} epochs"
        case EverySeconds(seconds):
            return f"every {brief(seconds)}"
        case EveryAuto():
            return "auto"


def since_words(history: History) -> str:
    """What intervals in time are counted from."""
    if not history.saved:
        return "since the start"
    return "since the resume" if history.since_s == history.started_s else "since the last snapshot"
