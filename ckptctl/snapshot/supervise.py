"""Staying with a restored job: signals are passed on, and its exit status becomes ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ckptctl.interrupt import STOPPING_SIGNALS
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot.restore_request import Restored

_OTHERS: Final = (
    signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH,
)  # fmt: skip


class Supervisor:
    """Passes signals on to a job, those too that come in while it is still being restored."""

    def __init__(self) -> None:
        self._root: ProcessId | None = None
        self._early: list[int] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """From here on no signal for the job ends ckptctl; SIGINT, SIGTERM and SIGHUP stay with the restore."""
        with self._receiving(_OTHERS):
            yield

    def wait(self, restored: Restored, received: signal.Signals | None) -> int:
        """Wait for the job and return its exit status as a shell would: 128 + N for signal N.

        `received` is a signal that came too late to stop the restore. To be called in the main thread of the process
        that restored the job, whose child it is.
        """
        with self._receiving(STOPPING_SIGNALS):
            self._root = restored.root
            for number in [*self._early, *([received] if received else [])]:
                control.send(restored.root, signal.Signals(number))
            if restored.child is not None:
                status = restored.child.wait()
                restored.child.close()
            else:
                status = os.waitstatus_to_exitcode(os.waitpid(restored.root.pid, 0)[1])
        return status if status >= 0 else 128 - status

    @contextmanager
    def _receiving(self, numbers: Sequence[signal.Signals]) -> Iterator[None]:
        former = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._root is None:
            self._early.append(number)
        else:
            control.send(self._root, signal.Signals(number))
