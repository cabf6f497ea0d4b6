"""One driver operation on a process at a time, whoever runs it, and none on a process that cannot answer.

The guard is a flock of /proc/PID/mem: only who may trace the process can take it, it leaves no file behind, and it
lasts as long as the operation does, even if ckptctl is killed, because the process that carries it out holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.02
_SHORT_STOP_S: Final = 0.3
# Where systemd mounts version 2: alone, or beside version 1.
_CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    return _state_letter(pid) in ("", "Z", "X")


def is_stopped(pid: int) -> bool:
    """Whether the process stays stopped, by a signal, a tracer or its cgroup, so that it cannot answer the driver.

    One that is stopped only for moments, as profilers do that sample it, is not.
    """
    deadline = time.monotonic() + _SHORT_STOP_S
    while _state_letter(pid) in ("T", "t") or _is_frozen(pid):
        if time.monotonic() >= deadline:
            return True
        time.sleep(_POLL_S)
    return False


def take(pid: int, timeout_s: float | None) -> int | None:
    """Wait until no other operation runs on the process; return the descriptor that keeps others out until closed.

    None where there is nothing to hold on to: the process is gone or may not be traced, and the driver will say so.
    Raises TimeoutError after `timeout_s`; None waits without end, as for an operation that must not be cut short.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _wait_for(descriptor, timeout_s)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for(descriptor: int, timeout_s: float | None) -> None:
    if timeout_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(_POLL_S)
        else:
            return


def _state_letter(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _is_frozen(pid: int) -> bool:
    """Whether the process's cgroup (version 2), or one above it, is frozen."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for root in _CGROUPS:
        try:
            return "frozen 1" in (root / group / "cgroup.events").read_text().splitlines()
        except OSError:  # not mounted there, or the group of all, which cannot be frozen
            continue
    return False
