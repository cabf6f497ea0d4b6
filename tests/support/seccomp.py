"""Running a filter for system calls outside the kernel."""

from __future__ import annotations

import struct

_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000


def allows(program: bytes, number: int) -> int:
    """0 where a filter of struct sock_filter allows the system call `number`, else the error that it answers."""
    accumulator = at = 0
    instructions = list(struct.iter_unpack("=HBBI", program))
    while True:
        code, jump_true, jump_false, value = instructions[at]
        at += 1
        if code == 0x20:
            assert value == 0, "of struct seccomp_data only the number is known here"
            accumulator = number
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += jump_true if accumulator == value else jump_false
        else:
            assert code == 0x06, f"instruction {code:#x}"
            return 0 if value == _ALLOW else value & ~_ERRNO
