"""Reporters: progress on a terminal, a plain line a step elsewhere, JSON lines with --json. All on standard error."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

from ckptctl.events import Caution, Event, Notice, Progress, Reporter, Silence, StepFinished, StepStarted, StepUndone
from ckptctl.output.document import event_line
from ckptctl.units import format_duration, format_size

_PLAIN_PROGRESS_S: Final = 10.0
_TERMINAL_PROGRESS_S: Final = 0.1
_CLEAR_LINE: Final = "\r\x1b[K"


class JsonLines:
    """Every event as a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def report(self, event: Event) -> None:
        """Write the event."""
        print(event_line(event), file=self._stream, flush=True)

    def close(self) -> None:
        """Every line is out already."""


class PlainLines:
    """A line for each step that took part, and for what is worth knowing; long steps say how far they are."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._titles: dict[str, str] = {}
        self._next_progress = time.monotonic() + _PLAIN_PROGRESS_S

    def report(self, event: Event) -> None:
        """Write the event, unless it is of no interest here."""
        text = self._text(event)
        if text is not None:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Every line is out already."""

    def _text(self, event: Event) -> str | None:
        match event:
            case StepStarted(name, title):
                self._titles[name] = title
                return None
            case StepFinished(name, seconds):
                return f"  {self._titles.get(name, name)}: {format_duration(seconds)}" if self._verbose else None
            case Progress():
                return self._progress(event)
            case _:
                return text_of(event)

    def _progress(self, event: Progress) -> str | None:
        if time.monotonic() < self._next_progress:
            return None
        self._next_progress = time.monotonic() + _PLAIN_PROGRESS_S
        return f"  {progress_text(event)}"


class Terminal:
    """The step at hand on one line that is rewritten, what is worth knowing above it."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        self._stream = stream
        self._lines = PlainLines(stream, verbose=verbose)
        self._title = ""
        self._next_progress = 0.0

    def close(self) -> None:
        """Take the line away."""
        self._write(_CLEAR_LINE)

    def report(self, event: Event) -> None:
        """Rewrite the line, or write one above it."""
        if isinstance(event, Progress):
            if time.monotonic() >= self._next_progress:
                self._next_progress = time.monotonic() + _TERMINAL_PROGRESS_S
                self._status(f"{self._title}: {progress_text(event)}")
            return
        self._write(_CLEAR_LINE)
        self._lines.report(event)
        if isinstance(event, StepStarted):
            self._title = event.title
        self._status(self._title)

    def _status(self, text: str) -> None:
        self._write(f"{_CLEAR_LINE}  {text} …")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def choose(*, json: bool, quiet: bool, verbose: bool, stream: TextIO | None = None) -> Reporter:
    """The reporter for this call."""
    target = stream or sys.stderr
    if quiet:
        return Silence()
    if json:
        return JsonLines(target)
    return Terminal(target, verbose=verbose) if target.isatty() else PlainLines(target, verbose=verbose)


def progress_text(event: Progress) -> str:
    """`420 MiB of about 1.2 GiB`; more than the estimate is not shown as more than all of it."""
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
