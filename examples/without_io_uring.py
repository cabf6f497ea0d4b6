"""Run a program for which the kernel has no io_uring: CRIU cannot save one, and libraries do well without.

usage: without_io_uring.py PROGRAM [ARGUMENT ...]

PROGRAM and all its descendants get ENOSYS from io_uring_setup(2), as on a kernel that lacks it; libuv, which torchrun
uses, then takes epoll. CRIU saves and restores the filter (seccomp(2)) with the process.
"""

import ctypes
import errno
import os
import sys

# From linux/prctl.h, linux/seccomp.h and linux/bpf_common.h; the number of the call is the same on every architecture.
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
IO_URING_SETUP = 425


class Instruction(ctypes.Structure):
    """struct sock_filter"""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction)))


def refuse_io_uring() -> None:
    """Install the filter in this process, which hands it on to whatever it executes."""
    instructions = (Instruction * 4)(
        Instruction(LOAD_WORD, 0, 0, 0),  # the number of the system call
        Instruction(JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(instructions), instructions)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"the filter cannot be installed: {os.strerror(number)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    refuse_io_uring()
    os.execvp(sys.argv[1], sys.argv[1:])
