"""Reading and writing past the page cache (O_DIRECT), and what that asks of memory and offsets."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, Linux 5.14
_MOST_POPULATING: Final = 4
_FETCHED_AT_ONCE_BYTES: Final = 16 << 20
# What a file system says that does not know O_DIRECT; some say it only when the file is written to.
_NOT_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
_MOST_PIECES: Final = os.sysconf("SC_IOV_MAX")

_CACHESTAT: Final = 451  # cachestat(2), Linux 6.5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def allocate(size_bytes: int) -> memoryview:
    """Memory of our own, at a page's start; its pages come when they are first used. Raises OSError."""
    return memoryview(_map(size_bytes))


def fetch(size_bytes: int, *, least_bytes: int, limit_s: float) -> memoryview:
    """Memory of our own whose pages are there: `least_bytes`, and of the rest what comes within `limit_s`.

    On a kernel before 5.14 all of it, with pages that come when they are first used. Raises OSError.
    """
    memory = _map(size_bytes)
    try:
        fetched = _populate(memory, least_bytes, limit_s)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fetched = size_bytes
    return memoryview(memory)[:fetched]


def _map(size_bytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size_bytes)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel without them: pages are small
            raise
    return memory


def _populate(memory: mmap.mmap, least_bytes: int, limit_s: float) -> int:
    """Fetch pages from the kernel, which clears them, from the first on; how many bytes those are that are there.

    By several threads, and while other threads of ours run.
    """
    start, size_bytes = ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory)
    deadline = time.monotonic() + limit_s
    offsets = iter(range(0, size_bytes, _FETCHED_AT_ONCE_BYTES))
    errors: list[int] = []
    fetched = 0
    lock = threading.Lock()

    def next_piece() -> tuple[int, int] | None:
        nonlocal fetched
        with lock:
            if errors or (fetched >= least_bytes and time.monotonic() > deadline):
                return None
            if (offset := next(offsets, None)) is None:
                return None
            fetched = min(offset + _FETCHED_AT_ONCE_BYTES, size_bytes)
            return start + offset, fetched - offset

    def work() -> None:
        while (piece := next_piece()) is not None:
            if _libc.madvise(*piece, _POPULATE_WRITE) != 0:
                errors.append(ctypes.get_errno())

    threads = [threading.Thread(target=work) for _ in range(min(_MOST_POPULATING, len(os.sched_getaffinity(0))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise OSError(errors[0], os.strerror(errors[0]))
    return fetched


def is_zero(piece: memoryview) -> bool:
    """Whether every byte is zero; costs next to nothing where the first ones are not."""
    if piece[0]:
        return False
    address = ctypes.addressof(ctypes.c_char.from_buffer(piece))
    return int(_libc.memcmp(address, address + 1, len(piece) - 1)) == 0


def open_new(path: Path) -> int:
    """Create a file (0600, it must not exist) that is written past the page cache where that can be. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _try_direct(descriptor)
    return descriptor


def open_existing(path: Path) -> int:
    """The file, to be read past the page cache where that can be. Raises OSError."""
    descriptor = open_regular(path)
    _try_direct(descriptor)
    return descriptor


def open_regular(path: Path) -> int:
    """The file, to be read, where it is one: whoever opens a FIFO may wait for ever. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file")
    return descriptor


def is_cached(descriptor: int, offset_bytes: int, size_bytes: int) -> bool:
    """Whether this part of a file lies in the page cache; False also where the kernel does not tell."""
    part = (ctypes.c_uint64 * 2)(offset_bytes, size_bytes)
    pages = (ctypes.c_uint64 * 5)()  # the first: how many are there
    if _libc.syscall(_CACHESTAT, descriptor, part, pages, 0) != 0:
        return False
    return pages[0] * mmap.PAGESIZE >= size_bytes


def write_all(descriptor: int, pieces: Sequence[memoryview], offset_bytes: int) -> None:
    """Write the pieces one behind the other; offset, lengths and places in memory are aligned. Raises OSError."""
    _transfer(os.pwritev, descriptor, pieces, offset_bytes)


def read_all(descriptor: int, piece: memoryview, offset_bytes: int) -> int:
    """Fill the piece, aligned as for `write_all`; how much was there, less at the end of the file. Raises OSError."""
    return _transfer(os.preadv, descriptor, [piece], offset_bytes)


def _transfer(
    call: Callable[[int, Sequence[memoryview], int], int],
    descriptor: int,
    pieces: Sequence[memoryview],
    offset_bytes: int,
) -> int:
    left = list(pieces)
    done = 0
    while left:
        try:
            count = call(descriptor, left[:_MOST_PIECES], offset_bytes + done)
        except OSError as error:
            if error.errno not in _NOT_DIRECT or not _give_up_direct(descriptor):
                raise
            continue
        if not count:
            break
        done += count
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]
    return done


def _try_direct(descriptor: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        if error.errno not in _NOT_DIRECT:
            raise


def _give_up_direct(descriptor: int) -> bool:
    """Go on through the page cache: where the file system takes no O_DIRECT after all, or not for such a piece."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)
