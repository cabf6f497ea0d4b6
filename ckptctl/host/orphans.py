"""Ended processes that process 1 has inherited and not reaped: their pids stay taken."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

# A process 1 that reaps has done so by then: some look for ended children every second or two only.
_PATIENCE_S: Final = 3.5
_POLL_S: Final = 0.1


def count_unreaped(proc: Path = Path("/proc"), patience_s: float = _PATIENCE_S) -> int:
    """How many are left by process 1 for longer than `patience_s`; takes no longer than until all were reaped."""
    deadline = time.monotonic() + patience_s
    left = _ended(proc)
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


def _stat(entry: Path) -> list[str]:
    try:
        return (entry / "stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []
