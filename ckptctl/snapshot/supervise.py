"""Staying with a restored job: signals are passed on, and its exit status becomes ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot.restore import Restored

PASSED_ON: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT,
    signal.SIGWINCH,
)  # fmt: skip


def supervise(restored: Restored) -> int:
    """Wait for the job and return its exit status as a shell would: 128 + N for signal N.

    To be called in the main thread by the process that restored the job, whose child it is.
    """
    with _passing_on(restored.root):
        if restored.child is not None:
            status = restored.child.wait()
            restored.child.close()
            return status if status >= 0 else 128 - status
        _, waited = os.waitpid(restored.root.pid, 0)
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


@contextmanager
def _passing_on(root: ProcessId) -> Iterator[None]:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        control.send(root, signal.Signals(number))

    former = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
