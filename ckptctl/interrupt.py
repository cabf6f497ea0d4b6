"""Ctrl-C and SIGTERM as a request that is looked at where stopping is safe.

A handler that raised would break in anywhere, between freezing a job and writing down that it is frozen, say. So the
handler only notes the signal, and whoever waits or loops calls `check`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol

from ckptctl.errors import CkptctlError, ExitStatus

STOPPING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(CkptctlError):
    """The command was asked to stop by SIGHUP or Ctrl-C, and did."""

    code = "E_INTERRUPTED"
    exit_status = ExitStatus.INTERRUPTED


class Terminated(CkptctlError):
    """The command was asked to stop by SIGTERM, and did."""

    code = "E_TERMINATED"
    exit_status = ExitStatus.TERMINATED


class Interrupt(Protocol):
    """Says whether the work should stop."""

    def check(self) -> None:
        """Raise Interrupted or Terminated if the command was asked to stop."""


class Never:
    """The interrupt of work that must go to its end."""

    def check(self) -> None:
        """Never ask to stop."""


class SignalInterrupt:
    """Collects SIGINT, SIGTERM and SIGHUP while `installed`."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None

    @property
    def received(self) -> signal.Signals | None:
        """The first of the signals that has come in."""
        return self._received

    def check(self) -> None:
        """Raise Interrupted or Terminated if one of the signals has come in."""
        if self._received is None:
            return
        kind = Terminated if self._received is signal.SIGTERM else Interrupted
        raise kind(f"Stopped by {self._received.name}.")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch the signals in this block (main thread only), then put the former handlers back, if none has come."""
        former = {number: signal.signal(number, self._note) for number in STOPPING_SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                # Once one has come the command only says how it ended: an impatient second one must not cut that off.
                signal.signal(number, handler if self._received is None else signal.SIG_IGN)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received = self._received or signal.Signals(number)
