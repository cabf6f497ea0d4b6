"""The memory that the image stream may use: a fixed number of buffers, and who needs one waits for it."""

from __future__ import annotations

import threading

from ckptctl.images import blockfile
from ckptctl.images.container import BLOCK_BYTES


class PoolClosed(Exception):
    """The work was given up; nobody gets a buffer any more."""


class Pool:
    """Buffers of BLOCK_BYTES each: at most `memory_bytes` together, but `least` of them in any case."""

    def __init__(self, memory_bytes: int, *, least: int) -> None:
        """Its memory is there when this returns. Raises OSError."""
        count = max(least, memory_bytes // BLOCK_BYTES)
        memory = blockfile.allocate(count * BLOCK_BYTES, populate=True)
        self._free = [memory[start : start + BLOCK_BYTES] for start in range(0, count * BLOCK_BYTES, BLOCK_BYTES)]
        self._changed = threading.Condition()
        self._closed = False
        self.size_bytes = count * BLOCK_BYTES

    def take(self) -> memoryview:
        """A buffer, as soon as there is one. Raises PoolClosed."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise PoolClosed
            return self._free.pop()

    def give(self, buffer: memoryview) -> None:
        """A buffer that is not needed any more."""
        with self._changed:
            if not self._closed:
                self._free.append(buffer)
                self._changed.notify()

    def close(self) -> None:
        """Nobody waits any longer; the memory is given back with the last buffer that is in use."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()
