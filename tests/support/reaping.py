"""Runs a command, and reaps at once whatever its descendants leave behind.

usage: reaping.py COMMAND...

A restored job is nobody's child. In containers the first process often looks after orphans once a second only, or not
at all, and each test that ends such a job would wait for that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """The exit status of the command, 128 and the number for a signal."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = os.posix_spawnp(command[0], command, os.environ)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(started, number)

    signal.signal(signal.SIGTERM, pass_on)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command as well
    while True:
        pid, status = os.wait()
        if pid == started:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
