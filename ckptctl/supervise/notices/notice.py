"""What a notice says, and what every place that notices come from can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ckptctl.errors import CkptctlError, ExitStatus


class NoticeUnavailable(CkptctlError):
    """A source of preemption notices does not answer, or not in its own words."""

    code = "E_NOTICE_UNAVAILABLE"
    exit_status = ExitStatus.TIMEOUT


class NoticeKind(Enum):
    """How sure it is that the machine goes."""

    ADVICE = "advice"
    """It may be taken soon, or never: a snapshot is worth its price, and the job goes on."""
    MAINTENANCE = "maintenance"
    """It is rebooted or moved: the job ends, and the same machine may come back."""
    PREEMPTION = "preemption"
    """It is taken away."""

    @property
    def ends_the_job(self) -> bool:
        return self is not NoticeKind.ADVICE


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning of one source, in its words; `deadline_s` is Unix time, None where the source does not tell."""

    source: str
    kind: NoticeKind
    words: str
    deadline_s: float | None = None

    def seconds_left(self, now_s: float) -> float | None:
        """Seconds until the machine goes, never below 0; None where nobody knows."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - now_s)


class NoticeSource(Protocol):
    """A place to look for notices. Only the thread that watches it calls `poll`; `close` may come from any."""

    @property
    def name(self) -> str:
        """What the user asked for, in short: aws, gcp, azure, file, command."""

    @property
    def interval_s(self) -> float:
        """Seconds to wait between two polls."""

    def poll(self) -> Notice | None:
        """What the source says now, within bounded time. Raises NoticeUnavailable."""

    def close(self) -> None:
        """End what a poll may have started; do not wait."""


def most_urgent(notices: tuple[Notice, ...]) -> Notice | None:
    """The notice that ends the job first: one that ends it before mere advice, a known deadline before a later one.

    An unknown deadline counts as the earliest: it may be now.
    """
    return min(notices, key=lambda notice: (not notice.kind.ends_the_job, notice.deadline_s or 0.0), default=None)
