"""What a check found, as data: rendered by the command line, written into reports, tested by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ckptctl.errors import CkptctlError, ExitStatus


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


class Refused(CkptctlError):
    """Something stands in the way of a dump or a restore; nothing was touched."""

    code = "E_REFUSED"
    exit_status = ExitStatus.PREFLIGHT_REFUSED


def refuse(findings: tuple[Finding, ...], what: str) -> None:
    """Raise Refused where there are blockers, with all of them and their remedies."""
    found = blockers(findings)
    if not found:
        return
    raise Refused(
        f"{what}: {' '.join(finding.summary for finding in found)}",
        hint=" ".join(dict.fromkeys(finding.remedy for finding in found if finding.remedy)),
        details={"checks": [finding.check for finding in found]},
    )
