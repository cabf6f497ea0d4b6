"""What a check found, as data: rendered by the command line, written into reports, tested by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

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

    `data` are facts for machines, as names and values.
    """

    check: Annotated[str, "the name of the check; it stays the same from version to version"]
    group: Annotated[str, "what the check is about; stable too"]
    level: Annotated[Level, "an error stands in the way, a warning may spoil it later, skipped could not be judged"]
    summary: Annotated[str, "a sentence for people; it may change"]
    remedy: Annotated[str | None, "what to do; null where nothing is to be done"] = None
    data: Annotated[tuple[tuple[str, str], ...], "facts by name, all as strings"] = ()


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
