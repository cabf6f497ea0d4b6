"""ckptctl, but killed just before its Nth change to the file system: a program of its own, for tests of crashes.

    python cut_at_change.py N WORDS...

Runs `ckptctl WORDS`. Python itself reports each rename, removal and link to audit hooks before it does them, so nothing
of ckptctl is patched. It ends as ckptctl does if there are fewer changes.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from ckptctl.cli.main import main

_CHANGES: Final = frozenset({"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.mkdir"})


def kill_before(number: int) -> None:
    """Let this process be killed by SIGKILL when the change `number` (the first is 1) is about to happen."""
    left = number

    def strike(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(strike)


if __name__ == "__main__":
    kill_before(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
