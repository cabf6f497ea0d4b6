"""A process is its pid together with its start time: a pid alone may belong to another process a moment later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus

# Positions after the name in /proc/PID/stat, where field 3 (state) comes first; see proc_pid_stat(5).
_STATE: Final = 0
_START_TIME: Final = 19
_DEAD: Final = frozenset("ZXx")


class NoSuchProcess(CkptctlError):
    """There is no process with this pid, or it has gone meanwhile."""

    code = "E_NO_PROCESS"
    exit_status = ExitStatus.NO_PROCESS


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """One process: `start_ticks` is its start in clock ticks since boot (field 22 of /proc/PID/stat)."""

    pid: int
    start_ticks: int

    def __str__(self) -> str:
        return str(self.pid)


def identify(pid: int) -> ProcessId:
    """The process that has this pid now, zombies included. Raises NoSuchProcess."""
    fields = _stat(pid)
    if fields is None:
        raise no_such_process(pid)
    return ProcessId(pid, int(fields[_START_TIME]))


def no_such_process(pid: int) -> NoSuchProcess:
    """The error for a pid that nobody has."""
    return NoSuchProcess(f"There is no process {pid}.", hint="`ckptctl ps` shows the jobs of this machine.")


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still exists and has not ended: a zombie is not alive."""
    fields = _stat(process.pid)
    return fields is not None and int(fields[_START_TIME]) == process.start_ticks and fields[_STATE] not in _DEAD


def exists(process: ProcessId) -> bool:
    """Whether this very process still holds its pid, be it as a zombie."""
    fields = _stat(process.pid)
    return fields is not None and int(fields[_START_TIME]) == process.start_ticks


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: the name before may hold spaces and brackets."""
    if pid <= 0:
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()
