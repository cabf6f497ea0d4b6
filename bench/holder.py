"""A process that holds memory which does not compress, and notes the time every millisecond.

usage: holder.py BYTES

Prints "ready ADDRESS" when the memory is filled. At that address of its memory lie 64-bit numbers: how many times are
written, then the times (CLOCK_MONOTONIC, ns). The largest distance between two of them is how long it stood still.
They are in private memory because a file, or shared memory with a name, would be one more thing to save.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time

SLOTS = 2_000_000  # more than half an hour
_CHUNK = 1 << 20


def hold(size_bytes: int) -> None:
    """Fill the memory, then beat for ever."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, size_bytes, _CHUNK):
        memory[start : start + _CHUNK] = os.urandom(min(_CHUNK, size_bytes - start))
    beats = (ctypes.c_uint64 * (SLOTS + 1))()
    print("ready", ctypes.addressof(beats), flush=True)
    for count in range(1, SLOTS + 1):
        beats[count] = time.monotonic_ns()
        beats[0] = count
        time.sleep(0.001)


if __name__ == "__main__":
    hold(int(sys.argv[1]))
