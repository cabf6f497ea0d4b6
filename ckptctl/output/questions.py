"""Asking whoever sits at the terminal."""

from __future__ import annotations

import sys

from ckptctl.output import stream


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Ask on standard error; everything but a yes is a no."""
    stream.write(sys.stderr, f"{stream.on_one_line(question)} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
