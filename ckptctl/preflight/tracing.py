"""May criu trace a job here? Asked of a machine and of every job."""

from __future__ import annotations

from typing import Final

from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Problem
from ckptctl.preflight.finding import Level

_FORBIDDEN: Final = 3
_TRACE: Final = "CAP_SYS_PTRACE"


def tracing_trouble(machine: Machine) -> Problem | None:
    """What Yama has against it (Documentation/admin-guide/LSM/Yama.rst): criu is never a parent of the job."""
    scope = machine.ptrace_scope
    if not scope:
        return None
    data = (("scope", str(scope)),)
    if scope >= _FORBIDDEN:
        return Problem(
            Level.ERROR,
            "The kernel allows nobody to trace processes (kernel.yama.ptrace_scope is 3).",
            data,
            "Boot with kernel.yama.ptrace_scope below 3: a running kernel does not take it back.",
        )
    if _TRACE in machine.capabilities:
        return None
    return Problem(
        Level.ERROR,
        f"kernel.yama.ptrace_scope is {scope}: without {_TRACE} criu may trace no process but its own children.",
        data,
        f"Run ckptctl as root with {_TRACE}, or: sysctl kernel.yama.ptrace_scope=0",
    )
