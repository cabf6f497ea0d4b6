"""Ended processes that process 1 has inherited and not reaped: their pids stay taken."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

# A process 1 that reaps has done so by then: some look for ended children every second or two only.
_PATIENCE_S: Final = 3.5
_POLL_S: Final = 0.1
# One that ended so lately may still be reaped.
_LATELY_S: Final = 10.0
# When a process ran last, in milliseconds of the scheduler's clock (proc_sched_show_task in kernel/sched/debug.c).
_RAN_LAST: Final = re.compile(r"^se\.exec_start\s*:\s*([\d.]+)", re.MULTILINE)


def count_unreaped(proc: Path = Path("/proc"), patience_s: float = _PATIENCE_S) -> int:
    """How many are left by process 1 for longer than `patience_s`; takes no longer than until all were reaped.

    Takes no time at all where the kernel tells that they all have only just ended, as on a busy machine they have.
    """
    deadline = time.monotonic() + patience_s
    left = _ended(proc)
    if all(ended_lately(proc, pid) for pid, _ in left):
        return 0
    while left and time.monotonic() < deadline:
        time.sleep(min(_POLL_S, patience_s))
        left &= _ended(proc)
    return len(left)


def _ended(proc: Path) -> frozenset[tuple[str, str]]:
    """Pid and start time of each zombie whose parent is process 1 (proc_pid_stat(5), fields 3, 4 and 22)."""
    found = set()
    for entry in proc.iterdir():
        if entry.name.isdigit():
            fields = _stat(entry)
            if fields[:2] == ["Z", "1"]:
                found.add((entry.name, fields[19]))
    return frozenset(found)


def ended_lately(proc: Path, pid: str) -> bool:
    """Whether this ended process ran in the last seconds; False where the kernel does not tell.

    The clocks of processors differ a little, which is why it is not enough.
    """
    then, now = _ran_last(proc / pid), _ran_last(proc / "self")
    return then is not None and now is not None and now - then < _LATELY_S


def _ran_last(entry: Path) -> float | None:
    try:
        found = _RAN_LAST.search((entry / "sched").read_text(errors="replace"))
    except OSError:
        return None
    return float(found[1]) / 1000 if found else None


def _stat(entry: Path) -> list[str]:
    try:
        return (entry / "stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []
