"""A process that a stranger traces, as under strace or a debugger. CRIU cannot trace it too."""

import os
import time

from shape import arguments, check, libc, run, stranger

PTRACE_SEIZE = 0x4206
options = arguments()
target = os.getpid()


def trace() -> None:
    check(libc.ptrace(PTRACE_SEIZE, target, None, None) == 0, "may not trace")
    while True:
        pid, status = os.waitpid(-1, 0x40000000)
        if os.WIFSTOPPED(status):
            libc.ptrace(7, pid, None, os.WSTOPSIG(status))


stranger(trace, options.seconds)
until = time.monotonic() + 5
while "TracerPid:\t0\n" in open("/proc/self/status").read() and time.monotonic() < until:
    time.sleep(0.01)
run(lambda k: None, options)
