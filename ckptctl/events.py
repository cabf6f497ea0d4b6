"""What the core says while it works. Only `ckptctl.output` turns these events into text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A named step of a dump or a restore begins; `title` is for people."""

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StepUndone:
    """A failure made this step be taken back; `error` says so if that failed too."""

    name: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` bytes of `what`; `total` is an estimate while the job's memory is being written."""

    what: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth knowing that is as it should be."""

    text: str


@dataclass(frozen=True, slots=True)
class Caution:
    """Something that went differently than one would expect, though the command goes on."""

    text: str
    code: str


Event = StepStarted | StepFinished | StepUndone | Progress | Notice | Caution


class Reporter(Protocol):
    """Receives events, from any thread; must return quickly and never raise."""

    def report(self, event: Event) -> None: ...

    def close(self) -> None:
        """Nothing more will be reported."""


class Silence:
    """A reporter that says nothing."""

    def report(self, event: Event) -> None:
        """Drop the event."""

    def close(self) -> None:
        """Nothing was held."""
