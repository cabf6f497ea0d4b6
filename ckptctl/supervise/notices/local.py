"""Notices that the site gives by itself: a file that appears, a command that is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ckptctl.command import CommandMissing, describe_status
from ckptctl.errors import UsageError
from ckptctl.supervise.limited import Ending, run_captured
from ckptctl.supervise.notices.notice import Notice, NoticeKind, NoticeUnavailable
from ckptctl.supervise.notices.times import iso_time_s
from ckptctl.units import parse_duration

# Ended rather than waited for: a notice that comes later than this is of no use.
COMMAND_LIMIT_S: Final = 10.0
_MOST_BYTES: Final = 4096
_NO_NOTICE: Final = 1


class FileNotices:
    """A file that is a notice while it exists.

    Its first line may tell the deadline: a duration, counted from the file's last change, or a time with its zone.
    The first line that is neither is the notice's words.
    """

    name = "file"
    interval_s = 1.0

    def __init__(self, path: Path) -> None:
        self._path = path

    def poll(self) -> Notice | None:
        try:
            with open(self._path, "rb") as file:
                changed_s = self._path.stat().st_mtime
                text = file.read(_MOST_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise NoticeUnavailable(
                f"{self._path} cannot be read: {error.strerror}.", hint="Make it a file that you may read."
            ) from error
        return _told(self.name, text, f"{self._path} is there", changed_s)

    def close(self) -> None:
        """Nothing is held between polls."""


class CommandNotices:
    """A command whose exit status tells: 0 there is a notice, 1 there is none, anything else it cannot tell.

    What it prints is read like a notice's file; a duration counts from then.
    """

    name = "command"
    interval_s = 5.0

    def __init__(self, words: tuple[str, ...], *, now_s: Callable[[], float], limit_s: float = COMMAND_LIMIT_S) -> None:
        self._words = words
        self._now_s = now_s
        self._limit_s = limit_s
        self._closed = threading.Event()

    def poll(self) -> Notice | None:
        program = self._words[0]
        try:
            ended, said = run_captured(self._words, limit_s=self._limit_s, give_up=self._closed.is_set)
        except (CommandMissing, OSError) as error:
            hint = "Correct --on-notice command:..."
            raise NoticeUnavailable(f"{program} cannot be run: {error}", hint=hint) from error
        if ended.ending is not Ending.BY_ITSELF:
            hint = "Make it answer at once: it is asked every few seconds."
            raise NoticeUnavailable(f"{program} did not end within {self._limit_s:g} s.", hint=hint)
        if ended.status == _NO_NOTICE:
            return None
        if ended.status != 0:
            hint = "Let it end with status 0 for a notice and 1 for none."
            raise NoticeUnavailable(f"{program} ended with {describe_status(ended.status)}.", hint=hint)
        return _told(self.name, said.decode("utf-8", "replace"), f"{program} gives notice", self._now_s())

    def close(self) -> None:
        self._closed.set()


def _told(source: str, text: str, otherwise: str, from_s: float) -> Notice:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    deadline_s = _deadline_s(lines[0], from_s) if lines else None
    words = lines[0 if deadline_s is None else 1 :]
    return Notice(source, NoticeKind.PREEMPTION, words[0] if words else otherwise, deadline_s)


def _deadline_s(text: str, from_s: float) -> float | None:
    """Unix time of a duration that began at `from_s`, or of a time with its zone; None for other words."""
    try:
        return from_s + parse_duration(text)
    except UsageError:
        return iso_time_s(text)
