"""Putting memory into a pipe by reference: who reads gets it from where it lies, and it is copied once, not twice.

Copying into a pipe also keeps its reader out of it meanwhile, so that the two would work in turn.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import termios
from typing import Final

_NONBLOCK: Final = 2  # SPLICE_F_NONBLOCK

_libc = ctypes.CDLL(None, use_errno=True)
_libc.vmsplice.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_libc.vmsplice.restype = ctypes.c_ssize_t


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("address", ctypes.c_void_p), ("size_bytes", ctypes.c_size_t))


def lend(pipe: int, piece: memoryview) -> int:
    """Put the beginning of a piece into a pipe, as far as there is room, and return how much that is.

    The piece is memory that can be written to, and must not be, until it has been read (see `unread_bytes`). A mapping
    may be given up before, but nothing that is used again then. Raises BlockingIOError for a full pipe, BrokenPipeError
    for one that nobody reads, OSError.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(piece))
    done = int(_libc.vmsplice(pipe, ctypes.byref(_Piece(address, len(piece))), 1, _NONBLOCK))
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))  # Python makes the class that belongs to the number
    return done


def unread_bytes(pipe: int) -> int:
    """How much of what was put into a pipe has not been copied by its reader (pipe(7), FIONREAD)."""
    found = bytearray(ctypes.sizeof(ctypes.c_int))
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return ctypes.c_int.from_buffer(found).value
