"""Reporters: progress on a terminal, a plain line a step elsewhere, JSON lines with --json. All on standard error."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Final, TextIO

from ckptctl.events import Caution, Event, Notice, Progress, Reporter, Silence, StepFinished, StepStarted, StepUndone
from ckptctl.output import stream as output
from ckptctl.output.document import event_line
from ckptctl.units import format_duration, format_size

_PLAIN_PROGRESS_S: Final = 10.0
_JSON_PROGRESS_S: Final = 0.5
_TERMINAL_PROGRESS_S: Final = 0.1
_CLEAR_LINE: Final = "\r\x1b[K"


class _Pace:
    """Lets progress through every so often: a slow reader of many lines would hold up the work."""

    def __init__(self, every_s: float, first_after_s: float = 0.0) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + first_after_s

    def due(self) -> bool:
        """Whether it is time for the next one."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._every_s
        return True


class JsonLines:
    """Every event as a line of JSON, progress not more often than is of use."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = _Pace(_JSON_PROGRESS_S)

    def report(self, event: Event) -> None:
        """Write the event."""
        if not isinstance(event, Progress) or self._progress.due():
            output.write(self._stream, event_line(event) + "\n")

    def close(self) -> None:
        """Every line is out already."""


class PlainLines:
    """A line for each step that took part, and for what is worth knowing; long steps say how far they are."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._titles: dict[str, str] = {}
        self._progress = _Pace(_PLAIN_PROGRESS_S, first_after_s=_PLAIN_PROGRESS_S)

    def report(self, event: Event) -> None:
        """Write the event, unless it is of no interest here."""
        text = self._text(event)
        if text is not None:
            shown = output.wrapped(output.harmless(text), output.columns(self._stream))
            output.write(self._stream, shown + "\n")

    def close(self) -> None:
        """Every line is out already."""

    def _text(self, event: Event) -> str | None:
        match event:
            case StepStarted(name, title):
                self._titles[name] = title
                return None
            case StepFinished(name, seconds):
                return f"  {self._titles.get(name, name)}: {format_duration(seconds)}" if self._verbose else None
            case StepUndone(_, None) if not self._verbose:
                return None  # the error says what became of the job
            case Progress():
                return f"  {progress_text(event)}" if self._progress.due() else None
            case _:
                return text_of(event)


class Terminal:
    """The step at hand on one line that is rewritten, what is worth knowing above it."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._lines = PlainLines(stream, verbose=verbose)
        self._title = ""
        self._shown = False
        self._progress = _Pace(_TERMINAL_PROGRESS_S)

    def close(self) -> None:
        """Take the line away, if there is one: what is on the terminal's line now may be the job's."""
        self._clear()

    def report(self, event: Event) -> None:
        """Rewrite the line, or write one above it."""
        if isinstance(event, Progress):
            if self._progress.due():
                self._status(f"{self._title}: {progress_text(event)}")
            return
        self._clear()
        self._lines.report(event)
        if isinstance(event, StepStarted):
            self._title = event.title
        elif isinstance(event, StepFinished):
            self._title = ""  # or it would be shown again until the next one begins
        if self._title:
            self._status(self._title)

    def _status(self, text: str) -> None:
        # A line that wraps could not be taken away again.
        room = shutil.get_terminal_size().columns - len("   …")
        output.write(self._stream, f"{_CLEAR_LINE}  {output.on_one_line(text)[: max(room, 0)]} …")
        self._shown = True

    def _clear(self) -> None:
        if self._shown:
            output.write(self._stream, _CLEAR_LINE)
        self._shown = False


def choose(*, json: bool, quiet: bool, verbose: bool, stream: TextIO | None = None) -> Reporter:
    """The reporter for this call."""
    target = stream or sys.stderr
    if quiet:
        return Silence()
    if json:
        return JsonLines(target)
    rewritable = target.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return Terminal(target, verbose=verbose) if rewritable else PlainLines(target, verbose=verbose)


def progress_text(event: Progress) -> str:
    """`memory: 420 MiB of 1.20 GiB`; the total is never shown as less than what is done already."""
    if event.total_bytes <= 0:
        return f"{event.what}: {format_size(event.done_bytes)}"
    return f"{event.what}: {format_size(event.done_bytes)} of {format_size(max(event.total_bytes, event.done_bytes))}"


def text_of(event: Event) -> str | None:
    """The sentence for an event that is said on a line of its own."""
    match event:
        case Notice(text):
            return text
        case Caution(text):
            return f"warning: {text}"
        case StepUndone(name, None):
            return f"  taken back: {name}"
        case StepUndone(name, error):
            return f"  could not be taken back: {name}: {error}"
        case _:
            return None
