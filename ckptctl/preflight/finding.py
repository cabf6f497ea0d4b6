"""What a check found, as data: rendered by the command line, written into reports, tested by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters: an ERROR makes a dump or a restore impossible, a WARNING may spoil it later."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    `check` and `group` are stable names. `remedy` says what to do, None where nothing is to be done. `data` are
    facts for machines, as names and values.
    """

    check: str
    group: str
    level: Level
    summary: str
    remedy: str | None = None
    data: tuple[tuple[str, str], ...] = ()


def blockers(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings that stand in the way."""
    return tuple(finding for finding in findings if finding.level is Level.ERROR)
