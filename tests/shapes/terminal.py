"""A process on a pty: its controlling terminal and standard output, the master held by another process.

--master inside: a process of the tree, as `script` or `expect` have it. outside: a stranger, as in a terminal window
or under ssh. none: opened by a stranger, not controlling, as a job started by setsid with a terminal as its output.
"""

import fcntl
import os
import pty
import termios

from shape import arguments, check, child, run, stranger

options = arguments(
    lambda parser: parser.add_argument("--master", choices=["inside", "outside", "none"], default="inside")
)


def drain(master: int) -> None:
    while os.read(master, 4096):
        pass


def hold(descriptor: int) -> None:
    os.close(descriptor)
    drain(master)


master, slave = pty.openpty()
if options.master == "inside":

    def program() -> None:
        os.close(master)
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for standard in (0, 1, 2):
            os.dup2(slave, standard)
        run(step, options)

else:

    def program() -> None:
        os.close(master)
        if options.master == "outside":
            if os.getsid(0) != os.getpid():
                os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for standard in (0, 1, 2):
            os.dup2(slave, standard)
        run(step, options)


def step(k: int) -> None:
    check(os.isatty(1), "standard output is no terminal any more")
    os.write(1, b"%d\n" % k)
    if options.master == "inside":
        check(os.tcgetpgrp(0) > 0, "there is no foreground group")


if options.master == "inside":
    child(program)
    os.close(slave)
    drain(master)
else:
    stranger(lambda: hold(slave), options.seconds)
    program()
