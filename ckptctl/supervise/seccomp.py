"""The filter for system calls under which a job starts: for it, this kernel has no io_uring."""

from __future__ import annotations

import errno
import struct
from typing import Final

# linux/bpf_common.h, linux/seccomp.h
_LOAD_WORD: Final = 0x20
_AND: Final = 0x54
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ERRNO: Final = 0x0005_0000
_ALLOW: Final = 0x7FFF_0000
_NUMBER_OFFSET: Final = 0
# The kernel gives new calls one number on all architectures, 32-bit programs included (asm/unistd.h). Excepted are
# Alpha and MIPS, where there is no CUDA, and programs for x32, whose numbers have this bit set besides.
_IO_URING_SETUP: Final = 425
_X32: Final = 0x4000_0000


def without_io_uring() -> bytes:
    """A program of struct sock_filter: io_uring_setup(2) answers ENOSYS, everything else is allowed.

    Without a ring the other two calls of io_uring have nothing to work on. The kernel sees beforehand that the other
    calls are allowed, so they cost no more than without (since Linux 5.11).
    """
    instructions = (
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
        (_AND, 0, 0, 0xFFFF_FFFF & ~_X32),
        (_JUMP_IF_EQUAL, 0, 1, _IO_URING_SETUP),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
