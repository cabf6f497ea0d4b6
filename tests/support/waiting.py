"""Waiting for something to become true, and reading logs that are still being written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(predicate: Callable[[], T | None], timeout_s: float = 30, what: str = "") -> T:
    """The first true value that `predicate` returns; AssertionError naming `what` after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > until:
            raise AssertionError(f"After {timeout_s:g} s still not: {what or predicate}")
        time.sleep(0.01)
    return value


def lines(path: Path) -> list[str]:
    """The complete lines of a log; none where the file is not there yet."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()
