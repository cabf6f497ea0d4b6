"""What a supervisor says: on the terminal, in a log of the run, and as alerts for who looks later."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.events import Caution, Event, Notice, Reporter

LOG_NAME: Final = "ckptctl.log"


class Diary:
    """A reporter for work that goes on for weeks beside a job that writes to the same terminal.

    Sentences are passed on and appended to `log` (0600) with the time; steps and progress, which would be drawn over
    what the job writes, are not.
    """

    def __init__(self, outer: Reporter, log: Path, now: Callable[[], datetime]) -> None:
        self._outer = outer
        self._log = log
        self._now = now

    def report(self, event: Event) -> None:
        """Say and write down a sentence."""
        if isinstance(event, Notice | Caution):
            self._outer.report(event)
            self._write(f"warning: {event.text}" if isinstance(event, Caution) else event.text)

    def close(self) -> None:
        """Nothing is held between two sentences."""

    def _write(self, text: str) -> None:
        moment = self._now().astimezone().strftime("%Y-%m-%d %H:%M:%S%z")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        # A full disk must not end the supervision; the terminal has heard it.
        with suppress(OSError), open(os.open(self._log, flags, files.PRIVATE_FILE), "w") as log:
            log.write(f"{moment} {' '.join(text.split())}\n")
