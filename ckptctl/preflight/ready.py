"""Is this machine ready to dump and to restore? Every check of it, in the order in which they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ckptctl.criu.program import Criu
from ckptctl.host.machine import Machine
from ckptctl.preflight import cluster, criu, cuda, cuda_gpus, host_limits, host_rights
from ckptctl.preflight.criu_facts import CriuFacts
from ckptctl.preflight.finding import Finding, Level, blockers
from ckptctl.preflight.machine_check import MachineCheck
from ckptctl.preflight.survey import Clock, Facts
from ckptctl.preflight.unknown import Unknown

CHECKS: Final[tuple[MachineCheck, ...]] = (
    *host_rights.CHECKS,
    *host_limits.CHECKS,
    *criu.CHECKS,
    *cuda.CHECKS,
    *cuda_gpus.CHECKS,
    *cluster.CHECKS,
)
GROUPS: Final = tuple(dict.fromkeys(check.group for check in CHECKS))
# Those that need nothing but what a dump or a restore has read anyway.
_ESSENTIAL: Final = frozenset({"privileges", "tracing", "criu", "criu-kernel"})
_ESSENTIAL_TO_RESTORE: Final = _ESSENTIAL | {"restore-privileges"}


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What every check says of these facts; a group of which nothing is here is one finding, skipped, with why."""
    found: list[Finding] = []
    for group in GROUPS:
        own = [finding for check in CHECKS if check.group == group for finding in check.findings(facts)]
        reasons = {finding.summary for finding in own}
        alike = len(reasons) == 1 and all(finding.level is Level.SKIPPED for finding in own)
        found += [Finding(group, group, Level.SKIPPED, reasons.pop())] if alike else own
    return tuple(found)


def essentials(machine: Machine, program: Criu, now: datetime, *, restoring: bool = False) -> tuple[Finding, ...]:
    """What stands in the way of every dump, or of every restore, by what these have read anyway: this user's rights,
    and this criu on this kernel. Costs nothing; empty where all is well."""
    names = _ESSENTIAL_TO_RESTORE if restoring else _ESSENTIAL
    unasked = Unknown("It was not asked.")
    facts = Facts(
        clock=Clock(now, None),
        machine=machine,
        kernel=unasked,
        confinement=unasked,
        limits=unasked,
        mount=unasked,
        place=unasked,
        criu=CriuFacts(program),
        cuda=unasked,
        slurm=unasked,
    )
    return blockers(tuple(one for check in CHECKS if check.name in names for one in check.findings(facts)))
