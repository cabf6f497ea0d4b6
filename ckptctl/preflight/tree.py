"""Can this process tree be dumped and restored? Every check of it, in the order in which they are shown.

No false alarm and no miss: an ERROR is what CRIU 4.2.1 cannot do with the options that `ckptctl.criu.choice` gives it,
a WARNING what it can do but what ends otherwise than one would expect.
"""

from __future__ import annotations

from typing import Final

from ckptctl.host.machine import Machine
from ckptctl.preflight import connections, descriptors, processes
from ckptctl.preflight.check import Check
from ckptctl.preflight.finding import Finding
from ckptctl.process.tree import Tree

CHECKS: Final[tuple[Check, ...]] = (*processes.CHECKS, *descriptors.CHECKS, *connections.CHECKS)


def findings(tree: Tree, machine: Machine) -> tuple[Finding, ...]:
    """What every check says of this tree: one finding for each problem, or one that all is well."""
    return tuple(finding for check in CHECKS for finding in check.findings(tree, machine))
