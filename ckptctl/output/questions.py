"""Asking whoever sits at the terminal."""

from __future__ import annotations

import signal
import sys

from ckptctl.output import stream


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Ask on standard error; everything but a yes is a no. Raises KeyboardInterrupt for Ctrl-C."""
    stream.write(sys.stderr, f"{stream.on_one_line(question)} [y/N] ")
    # While work is done Ctrl-C is only noted; a question that waits for ever must end.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    finally:
        signal.signal(signal.SIGINT, former)
