"""The log of a job, read as it grows.

A log may be cut back: a restore puts it back to the size that it had at the dump. What was known at that place is kept
at marks, so that a metric from long before is still known then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ckptctl.progress import values
from ckptctl.progress.formats import Format
from ckptctl.progress.source import Version, read_part, version
from ckptctl.progress.values import Found
from ckptctl.store.manifest import Progress

# What is read at a time. Of what a job writes faster than that, the end counts.
_MOST_BYTES: Final = 1 << 20
_LONGEST_LINE_BYTES: Final = 64 << 10
_MATCHED_CHARACTERS: Final = 2048
_FINGERPRINT_BYTES: Final = 64
_MOST_MARKS: Final = 256
# Progress bars return to the beginning of the line, old Keras by backspaces.
_ENDS: Final = re.compile(rb"[\r\n\x08]+")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")


@dataclass(frozen=True, slots=True)
class _Mark:
    """What was known when the log had been read up to `offset`; `fingerprint` is what stood just before it.

    `within` says that a line, too long to be looked at, goes on at the offset.
    """

    offset: int
    fingerprint: bytes
    progress: Progress
    longest_bar: int = 0
    within: bool = False


class Log:
    """One file to which the job writes, and the form of the lines that tell how far it is.

    What stands in it before the offset `begin_bytes` is not looked at, unless it is cut off there.
    """

    def __init__(self, path: Path, form: Format, begin_bytes: int = 0) -> None:
        self.path = path
        self.place = str(path)
        self.name = f"log {path.name} ({form.name})"
        self._form = form
        self._start = _Mark(0, b"", Progress())
        self._marks = [self._start, _Mark(begin_bytes, b"", Progress())]
        self._version: Version | None = None

    def read(self) -> Progress:
        """See Source."""
        now = version(self.path)
        if now != self._version:
            if now is None or (self._version is not None and now.inode != self._version.inode):
                self._marks = [self._start]
            if now is not None:
                self._go_on(now.size_bytes)
            self._version = now
        return self._marks[-1].progress

    def _go_on(self, size: int) -> None:
        """Read from the last mark that still holds."""
        while not self._holds(self._marks[-1], size):
            self._marks.pop()
        mark = self._marks[-1]
        if size - mark.offset > _MOST_BYTES:
            mark = replace(mark, offset=size - _MOST_BYTES, within=True)
        data = read_part(self.path, mark.offset, min(size - mark.offset, _MOST_BYTES))
        if data:
            self._add(self._after(mark, data))

    def _holds(self, mark: _Mark, size: int) -> bool:
        if mark.offset > size:
            return False
        count = len(mark.fingerprint)
        return read_part(self.path, mark.offset - count, count) == mark.fingerprint

    def _after(self, mark: _Mark, data: bytes) -> _Mark:
        """The mark after the complete lines of `data`, which begins at `mark`."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r"), data.rfind(b"\b")) + 1
        if not end:
            # No line is complete. One that is too long is given up: what comes next is its continuation.
            too_long = len(data) >= _LONGEST_LINE_BYTES or mark.within
            end = len(data) if too_long else 0
            return replace(
                mark, offset=mark.offset + end, fingerprint=data[:end][-_FINGERPRINT_BYTES:], within=too_long
            )
        lines = _ENDS.split(data[:end])
        progress, longest = mark.progress, mark.longest_bar
        for line in lines[1:] if mark.within else lines:
            found = self._found(line)
            if found and (found.steps_in_all or longest) >= longest:
                longest = found.steps_in_all or longest
                progress = values.advance(progress, found)
        if progress is not mark.progress:
            progress = replace(progress, source=self.name)
        return _Mark(mark.offset + end, data[:end][-_FINGERPRINT_BYTES:], progress, longest)

    def _found(self, line: bytes) -> Found | None:
        if not line or len(line) > _LONGEST_LINE_BYTES:
            return None
        text = line[: 4 * _MATCHED_CHARACTERS].decode("utf-8", "replace")
        if "\x1b" in text:
            text = _ESCAPES.sub("", text)
        return self._form.find(text[:_MATCHED_CHARACTERS].strip())

    def _add(self, mark: _Mark) -> None:
        """Remember it. The older marks are, the further they are apart."""
        if mark.offset == self._marks[-1].offset:
            return
        self._marks.append(mark)
        if len(self._marks) > _MOST_MARKS:
            self._marks[1:-1] = self._marks[2:-1:2]
