"""The checks of a machine that come before every dump and every restore; to load all of them takes longer."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ckptctl.criu.program import Criu
from ckptctl.host.machine import Machine
from ckptctl.preflight import criu, host_rights
from ckptctl.preflight.criu_facts import CriuFacts
from ckptctl.preflight.finding import Finding, blockers
from ckptctl.preflight.survey import Clock, Facts
from ckptctl.preflight.unknown import Unknown

_CHECKS: Final = (*host_rights.CHECKS, *criu.CHECKS)
# Those that need nothing but what a dump or a restore has read anyway.
_ESSENTIAL: Final = frozenset({"privileges", "tracing", "criu", "criu-kernel"})
_ESSENTIAL_TO_RESTORE: Final = _ESSENTIAL | {"restore-privileges"}


def findings(machine: Machine, program: Criu, now: datetime, *, restoring: bool = False) -> tuple[Finding, ...]:
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
    return blockers(tuple(one for check in _CHECKS if check.name in names for one in check.findings(facts)))
