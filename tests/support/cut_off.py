"""ckptctl, but killed or interrupted at one exact moment: a program of its own, used by the tests of recovery.

    python cut_off.py BLOW EVENT STEP WORDS...

Runs `ckptctl WORDS`; when the step STEP is `started` or `finished` it sends itself the signal BLOW (SIGKILL, SIGTERM,
SIGINT), or loses a right of root's (CAP_NET_ADMIN), or both (CAP_NET_ADMIN+SIGTERM).
It listens where every reporter does, so nothing of ckptctl is patched but who hears it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from dataclasses import dataclass
from typing import Final

from ckptctl.cli.main import main
from ckptctl.events import Event, StepFinished, StepStarted
from ckptctl.output import reporters

# linux/capability.h
_VERSION: Final = 0x2008_0522
_NET_ADMIN: Final = 12


@dataclass(frozen=True, slots=True)
class CutOff:
    """A reporter that ends its own process, or weakens it."""

    blows: tuple[str, ...]
    event: str
    step: str

    def report(self, event: Event) -> None:
        """Strike if this is the moment."""
        moments: dict[str, type[StepStarted | StepFinished]] = {"started": StepStarted, "finished": StepFinished}
        if isinstance(event, moments[self.event]) and event.name == self.step:
            for blow in self.blows:
                if blow == "CAP_NET_ADMIN":
                    lose_net_admin()
                else:
                    os.kill(os.getpid(), signal.Signals[blow])

    def close(self) -> None:
        """Nothing was held."""


def lose_net_admin() -> None:
    """Give CAP_NET_ADMIN up (capset(2)): connections in repair mode stay so from here on."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION, 0))
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: the lower halves, then the upper ones
    assert libc.capget(header, data) == 0
    words = list(struct.unpack("=6I", data.raw[:24]))
    words[:2] = [word & ~(1 << _NET_ADMIN) for word in words[:2]]
    assert libc.capset(header, struct.pack("=6I", *words)) == 0


if __name__ == "__main__":
    reporter = CutOff(tuple(sys.argv[1].split("+")), sys.argv[2], sys.argv[3])
    reporters.choose = lambda **_: reporter
    sys.exit(main(sys.argv[4:]))
