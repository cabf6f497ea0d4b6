"""The priority of work that nobody waits for, and of the moments in which somebody does."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# ioprio_set(2) and ioprio_get(2).
_SYSCALLS: Final = {"x86_64": (251, 252), "aarch64": (30, 31)}
# linux/ioprio.h
_WHO_PROCESS: Final = 1
_CLASS_IDLE: Final = 3
_CLASS_SHIFT: Final = 13


@dataclass(frozen=True, slots=True)
class _Priority:
    """`session` counts between sessions, where the kernel groups processes by them (CONFIG_SCHED_AUTOGROUP)."""

    nice: int
    session: int
    disk: int


_LOWEST: Final = _Priority(19, 19, _CLASS_IDLE << _CLASS_SHIFT)


def make_lowest(pid: int) -> None:
    """Let a process that was just started have what CPU and disk no other wants; its threads inherit that.

    What the kernel does not know, or the process does not live to see, is left out.
    """
    _give(pid, _LOWEST)


@contextmanager
def raised() -> Iterator[None]:
    """Work at the usual priority in this block, as far as the kernel allows that: others wait for it.

    A lock that is held at the lowest one would hold up whoever wants it for as long as the CPUs are busy.
    """
    before = _Priority(os.getpriority(os.PRIO_PROCESS, 0), _session_nice("self"), _disk_priority())
    disk = 0 if before.disk >> _CLASS_SHIFT == _CLASS_IDLE else before.disk
    _give(os.getpid(), _Priority(min(before.nice, 0), min(before.session, 0), disk))
    try:
        yield
    finally:
        _give(os.getpid(), before)


def _give(pid: int, priority: _Priority) -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, priority.nice)
    with suppress(OSError):
        if _session_nice(pid) != priority.session:
            Path(f"/proc/{pid}/autogroup").write_text(f"{priority.session}\n")
    if (numbers := _SYSCALLS.get(platform.machine())) is not None:
        _syscall(numbers[0], _WHO_PROCESS, pid, priority.disk)


def _session_nice(pid: int | str) -> int:
    """From `/autogroup-NUMBER nice N`; 0 where the kernel does not group."""
    try:
        words = Path(f"/proc/{pid}/autogroup").read_text().split()
    except OSError:
        return 0
    return int(words[-1]) if words else 0


def _disk_priority() -> int:
    numbers = _SYSCALLS.get(platform.machine())
    return 0 if numbers is None else max(0, _syscall(numbers[1], _WHO_PROCESS, 0))


def _syscall(number: int, *arguments: int) -> int:
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), *map(ctypes.c_int, arguments)))
