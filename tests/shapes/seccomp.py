"""A process under a seccomp filter that answers ENOSYS to io_uring_setup, as a job under ckptctl is started."""

import ctypes
import errno
import struct

from shape import arguments, check, libc, need, run

IO_URING_SETUP = 425
options = arguments()
program = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, IO_URING_SETUP),
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    )
)
code = ctypes.create_string_buffer(program, len(program))
filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)), 16)
need(libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filters, 0, 0) == 0, "no seccomp filter")


def step(k: int) -> None:
    check(libc.syscall(IO_URING_SETUP, 4, None) == -1 and ctypes.get_errno() == errno.ENOSYS, "the filter is gone")


run(step, options)
