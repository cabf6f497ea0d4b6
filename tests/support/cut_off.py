"""ckptctl, but killed or interrupted at one exact moment: a program of its own, used by the tests of recovery.

    python cut_off.py SIGNAL EVENT STEP WORDS...

Runs `ckptctl WORDS` and sends itself SIGNAL (SIGKILL, SIGTERM, SIGINT) when the step STEP is `started` or `finished`.
It listens where every reporter does, so nothing of ckptctl is patched but who hears it.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from ckptctl.cli.main import main
from ckptctl.events import Event, StepFinished, StepStarted
from ckptctl.output import reporters


@dataclass(frozen=True, slots=True)
class CutOff:
    """A reporter that ends its own process."""

    number: signal.Signals
    event: str
    step: str

    def report(self, event: Event) -> None:
        """Send the signal if this is the moment."""
        moments: dict[str, type[StepStarted | StepFinished]] = {"started": StepStarted, "finished": StepFinished}
        if isinstance(event, moments[self.event]) and event.name == self.step:
            os.kill(os.getpid(), self.number)

    def close(self) -> None:
        """Nothing was held."""


if __name__ == "__main__":
    reporter = CutOff(signal.Signals[sys.argv[1]], sys.argv[2], sys.argv[3])
    reporters.choose = lambda **_: reporter
    sys.exit(main(sys.argv[4:]))
