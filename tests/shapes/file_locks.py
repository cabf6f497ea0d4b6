"""A flock, a POSIX record lock and a lock of an open file description, which nobody else may get."""

import errno
import fcntl
import os
import struct

from shape import Broken, arguments, run

options = arguments()
files = {kind: open(f"{options.log}.{kind}", "w+") for kind in ("flock", "posix", "open_file")}
WHOLE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
fcntl.flock(files["flock"], fcntl.LOCK_EX)
fcntl.lockf(files["posix"], fcntl.LOCK_EX, 10, 5)
fcntl.fcntl(files["open_file"], fcntl.F_OFD_SETLK, WHOLE)


def try_locks() -> None:
    """In a child: each lock must be refused to it."""
    for kind, name in enumerate(files):
        with open(f"{options.log}.{name}", "r+") as other:
            try:
                if kind == 0:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                elif kind == 1:
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
                else:
                    fcntl.fcntl(other, fcntl.F_OFD_SETLK, WHOLE)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    continue
            os._exit(10 + kind)
    os._exit(0)


def step(k: int) -> None:
    pid = os.fork()
    if pid == 0:
        try_locks()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise Broken(f"lock {status} was given to another")


run(step, options)
