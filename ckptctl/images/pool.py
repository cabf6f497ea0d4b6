"""The memory that the image stream may use: a fixed number of buffers, and who needs one waits for it."""

from __future__ import annotations

import math
import threading
from typing import Final

from ckptctl.images import blockfile
from ckptctl.images.container import GROUP_BYTES

# Fewer free ones than this, and whoever fills will soon wait.
_SCARCE: Final = 4


class PoolClosed(Exception):
    """The work was given up; nobody gets a buffer any more."""


class Pool:
    """Buffers of GROUP_BYTES each: at most `memory_bytes` together, but `least` of them in any case.

    A buffer is taken, filled, handed over to whoever empties it, and given back. Who waits for one waits for somebody
    who empties; where all are being filled nobody would come, and there is one more. So the memory is that of the pool,
    or one buffer for each that is filled at the same time.
    """

    def __init__(self, memory_bytes: int, *, least: int, limit_s: float = math.inf) -> None:
        """Its memory is there when this returns: what of it comes within `limit_s`. Raises OSError."""
        wanted_bytes = max(least, memory_bytes // GROUP_BYTES) * GROUP_BYTES
        memory = blockfile.fetch(wanted_bytes, least_bytes=least * GROUP_BYTES, limit_s=limit_s)
        self._count = len(memory) // GROUP_BYTES
        self._free = [memory[start : start + GROUP_BYTES] for start in range(0, self.size_bytes, GROUP_BYTES)]
        self._changed = threading.Condition()
        self._filling = 0
        self._closed = False
        self._hurried = False

    @property
    def size_bytes(self) -> int:
        """The memory of all buffers."""
        return self._count * GROUP_BYTES

    def take(self) -> memoryview:
        """A buffer to fill, as soon as there is one. Raises PoolClosed, OSError."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed or self._filling == self._count)
            if self._closed:
                raise PoolClosed
            if not self._free:
                self._free.append(blockfile.allocate(GROUP_BYTES))
                self._count += 1
            self._filling += 1
            self._changed.notify_all()
            return self._free.pop()

    def hand_over(self) -> None:
        """A buffer that was taken is filled: it will be given back without more being read."""
        with self._changed:
            self._filling -= 1

    def give(self, buffer: memoryview) -> None:
        """A buffer that was handed over is empty again."""
        with self._changed:
            if not self._closed:
                self._free.append(buffer)
                self._changed.notify()

    def wait_until_scarce(self) -> None:
        """Let whoever empties buffers wait until nearly all are filled, or `hurry` says that it is time."""
        with self._changed:
            self._changed.wait_for(lambda: self._hurried or self._closed or len(self._free) < _SCARCE)

    def hurry(self) -> None:
        """Nobody waits until buffers are scarce any more."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer; the memory goes with the last buffer that is in use."""
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()
