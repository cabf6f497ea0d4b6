"""Ended processes that process 1 has inherited and not reaped: their pids stay taken."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

# A process 1 that reaps has done so by then, on a busy machine too.
_PATIENCE_S: Final = 0.3


def count_unreaped(proc: Path = Path("/proc"), patience_s: float = _PATIENCE_S) -> int:
    """How many are left by process 1 for longer than `patience_s`; takes that long only where there are any."""
    first = _ended(proc)
    if not first:
        return 0
    time.sleep(patience_s)
    return len(first & _ended(proc))


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
