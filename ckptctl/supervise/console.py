"""Showing what a job writes to its logs, while it does. The job knows nothing of it."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TICK_S: Final = 0.1
_PIECE_BYTES: Final = 1 << 14
# POSIX's least PIPE_BUF on Linux: a pipe that is ready takes as much without blocking.
_WRITE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Stream:
    """A log that may still be missing, and the descriptor of ours to show it on; neither is ever closed or changed."""

    log: Path
    descriptor: int


class Console:
    """Copies what is appended to logs, byte by byte as it is, in a thread of its own: a terminal that is slow, stopped
    or gone holds up nothing else. One that is gone is not written to any more.

    Begins at `positions` (offset in bytes of each log), or else at the end that each log has now. A log that has become
    shorter was put back by a restore: what stands in it then was shown before, and only what is appended comes. A log
    that is cut and grows past its former end within a tick of 0.1 s is not noticed: so stop the console for a restore,
    and begin a new one at its `positions`, or where the restore has cut a log, at that size.
    """

    def __init__(self, streams: Iterable[Stream], positions: Mapping[Path, int] | None = None) -> None:
        known = positions or {}
        self._tails = tuple(_Tail(stream, known.get(stream.log, _size(stream.log))) for stream in streams)
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._turn = threading.Condition()
        self._asked = 0
        self._seen = 0
        self._answered = 0
        self._last: int | None = None
        self._give_up_s: float | None = None

    @property
    def positions(self) -> dict[Path, int]:
        """How far each log was shown."""
        return {tail.stream.log: tail.position for tail in self._tails}

    def start(self) -> Self:
        """Begin to show."""
        self._thread.start()
        return self

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that stands in the logs now is shown, or nobody is there to see it; False where that takes
        longer."""
        with self._turn:
            self._asked += 1
            number = self._asked
            self._turn.notify_all()
            return self._turn.wait_for(lambda: self._answered >= number, timeout_s)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Show what stands in the logs now and end; False where that takes longer, and the rest is not shown."""
        self._give_up_s = time.monotonic() + timeout_s
        with self._turn:
            self._asked += 1
            self._last = self._asked
            self._turn.notify_all()
        self._thread.join(timeout_s + 2 * _TICK_S)
        return self._answered >= self._asked

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended():
            with self._turn:
                self._turn.wait_for(lambda: self._asked > self._seen, 0 if self._behind() else _TICK_S)
                new, self._seen = self._asked > self._seen, self._asked
            if new:
                for tail in self._tails:
                    tail.ask()
            for tail in self._tails:
                tail.copy()
            if not any(tail.owes for tail in self._tails):
                with self._turn:
                    self._answered = self._seen
                    self._turn.notify_all()

    def _ended(self) -> bool:
        late = self._give_up_s is not None and time.monotonic() > self._give_up_s
        return late or (self._last is not None and self._answered >= self._last)

    def _behind(self) -> bool:
        return any(tail.behind for tail in self._tails)


class _Tail:
    """One log, as far as it was shown. Each turn shows a bounded piece, and waits a tick at most for who watches."""

    def __init__(self, stream: Stream, position: int) -> None:
        self.stream = stream
        self.position = position
        self.behind = False
        self._due = 0
        self._gone = False

    def ask(self) -> None:
        """What stands in the log now is owed."""
        self._due = _size(self.stream.log)

    @property
    def owes(self) -> bool:
        """Whether something that was asked for is still to be shown, and somebody there to see it."""
        return self.position < self._due and not self._gone

    def copy(self) -> None:
        """Show some of what was appended."""
        size = _size(self.stream.log)
        self.position = min(self.position, size)
        self._due = min(self._due, size)
        self.behind = False
        if self._gone or self.position == size:
            return
        try:
            shown = self._show(self._read())
        except OSError:
            # Whoever watched has gone, or the disk that the log is on has trouble: the job goes on without being shown.
            self._gone = True
            return
        self.position += shown
        self.behind = shown > 0 and self.position < size

    def _read(self) -> bytes:
        descriptor = os.open(self.stream.log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, _PIECE_BYTES, self.position)
        finally:
            os.close(descriptor)

    def _show(self, piece: bytes) -> int:
        """Write as much as there is room for; returns how much that was."""
        poller = select.poll()
        poller.register(self.stream.descriptor, select.POLLOUT)
        shown = 0
        while shown < len(piece) and poller.poll(_TICK_S * 1000):
            try:
                shown += os.write(self.stream.descriptor, piece[shown : shown + _WRITE_BYTES])
            except BlockingIOError:
                # Somebody else has filled it up in between.
                break
        return shown


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
