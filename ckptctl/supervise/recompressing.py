"""Kept snapshots of a run made smaller in the background: a program of its own that does not hold the job up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ckptctl import command, files
from ckptctl.errors import CkptctlError
from ckptctl.host.priority import make_lowest
from ckptctl.images.levels import Compression
from ckptctl.store.layout import RunFolder, Store
from ckptctl.units import format_size

# For the rename it needs the run for itself, and a dump of a large job takes its time.
_LOCK_WAIT: Final = "1h"
# How long its end is waited for: what it had begun takes no space then.
_PARTING_S: Final = 1.0
_TAIL_BYTES: Final = 4096
_SPEAKS: Final = "ckptctl: "


@dataclass(frozen=True, slots=True)
class Recompression:
    """How small kept snapshots are made; `program` is the ckptctl that does it."""

    program: Path
    compression: Compression


class Recompressing:
    """Runs `ckptctl recompress` for one run, never two at once, and ends it with the block that this is entered for.

    `tell` is given what went wrong, each reason once until it goes well again.
    """

    def __init__(self, wanted: Recompression | None, store: Store, run: RunFolder, tell: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._store = store
        self._run = run
        self._tell = tell
        self._told = ""
        self._due = False
        self._room_bytes = 0
        self._child: command.Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.stop()

    def start(self, contents_bytes: int) -> None:
        """Work on the snapshots that are there now; where that is under way, once more when it has ended.

        The newest one holds `contents_bytes`: there must be room for it once more, and for the next one.
        """
        self._due, self._room_bytes = True, 2 * contents_bytes
        self.look()

    def look(self) -> None:
        """To be called every few moments: it may have ended."""
        if self._child is not None:
            status = self._child.poll()
            if status is None:
                return
            self._release(self._child)
            self._judge(status)
        if self._due and self._wanted is not None:
            self._due = False
            self._begin(self._wanted)

    def stop(self) -> None:
        """End what is under way, if anything is: snapshots that are done stay so, the others are as they were."""
        self._due = False
        child = self._child
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)
        # One that waits for the disk ends when it can: what is urgent must not wait with it.
        child.poll(_PARTING_S)
        self._release(child)

    def _begin(self, wanted: Recompression) -> None:
        log, place = self._run.recompress_log, self._store.path
        options = ("--compress", wanted.compression.value, "--lock-wait", _LOCK_WAIT, "--quiet")
        words = (wanted.program, "recompress", "--run", self._run.name, "--store", place, *options)
        try:
            free = files.free_bytes(place)
            if free < self._room_bytes:
                self._say(f"{place} has {format_size(free)} left, and {format_size(self._room_bytes)} should be there.")
                return
            files.remove(log)
            self._child = command.start(words, output=log)
        except (CkptctlError, OSError) as error:
            self._say(str(error))
            return
        make_lowest(self._child.pid)

    def _judge(self, status: int) -> None:
        if status == 0:
            self._told = ""
            return
        said = self._last_words() or f"It ended with {command.describe_status(status)}."
        self._say(f"{said} ({self._run.recompress_log})")

    def _say(self, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            self._tell(f"The snapshots of the run {self._run.name} are not made smaller. {reason}")

    def _last_words(self) -> str:
        """What it failed with, as far as it said so."""
        try:
            lines = self._run.recompress_log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.removeprefix(_SPEAKS) for line in reversed(lines) if line.startswith(_SPEAKS)), "")

    def _release(self, child: command.Child) -> None:
        child.close()
        self._child = None
