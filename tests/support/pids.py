"""Processes that a test's programs have written down by their pids."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from support.jobs import state
from support.waiting import wait_for


def written(pids: Path) -> list[int]:
    """The pids in a file, in the order in which they stand there."""
    return [int(word) for word in pids.read_text().split()]


def alive(pid: int) -> bool:
    return state(pid) not in "ZX"


def wait_gone(pids: Path) -> None:
    """Wait until none of them is alive; AssertionError where one stays."""
    found = written(pids)
    assert found
    wait_for(lambda: not any(alive(pid) for pid in found), what=f"processes {found} gone")


def kill(pids: Path) -> None:
    for pid in written(pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
