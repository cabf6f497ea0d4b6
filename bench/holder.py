"""A process that holds memory which does not compress, and notes the time every millisecond.

usage: holder.py BYTES HEARTBEATS

HEARTBEATS is a file of 64-bit numbers: how many times are written, then the times (CLOCK_MONOTONIC, ns). The largest
distance between two of them is how long the process stood still. Prints "ready" when the memory is filled.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time

SLOTS = 2_000_000  # more than half an hour
_CHUNK = 1 << 20


def hold(size_bytes: int, path: str) -> None:
    """Fill the memory, then beat for ever."""
    memory = mmap.mmap(-1, size_bytes)
    for start in range(0, size_bytes, _CHUNK):
        memory[start : start + _CHUNK] = os.urandom(min(_CHUNK, size_bytes - start))
    with open(path, "r+b") as file:
        file.truncate(8 * (SLOTS + 1))
        beats = mmap.mmap(file.fileno(), 8 * (SLOTS + 1))
    print("ready", flush=True)
    for count in range(1, SLOTS + 1):
        struct.pack_into("<Q", beats, 8 * count, time.monotonic_ns())
        struct.pack_into("<Q", beats, 0, count)
        time.sleep(0.001)


if __name__ == "__main__":
    hold(int(sys.argv[1]), sys.argv[2])
