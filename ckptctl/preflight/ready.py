"""Is this machine ready to dump and to restore? Every check of it, in the order in which they are shown."""

from __future__ import annotations

from typing import Final

from ckptctl.preflight import cluster, criu, cuda, cuda_gpus, host_limits, host_rights
from ckptctl.preflight.finding import Finding, Level
from ckptctl.preflight.machine_check import MachineCheck
from ckptctl.preflight.survey import Facts

CHECKS: Final[tuple[MachineCheck, ...]] = (
    *host_rights.CHECKS,
    *host_limits.CHECKS,
    *criu.CHECKS,
    *cuda.CHECKS,
    *cuda_gpus.CHECKS,
    *cluster.CHECKS,
)
GROUPS: Final = tuple(dict.fromkeys(check.group for check in CHECKS))


def findings(facts: Facts) -> tuple[Finding, ...]:
    """What every check says of these facts; a group of which nothing is here is one finding, skipped, with why."""
    found: list[Finding] = []
    for group in GROUPS:
        own = [finding for check in CHECKS if check.group == group for finding in check.findings(facts)]
        reasons = {finding.summary for finding in own}
        alike = len(reasons) == 1 and all(finding.level is Level.SKIPPED for finding in own)
        found += [Finding(group, group, Level.SKIPPED, reasons.pop())] if alike else own
    return tuple(found)
