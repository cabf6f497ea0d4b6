"""An interval timer, a timerfd, an ignored signal, and blocked ones that stay pending, one with a value.

The timerfd fires once and is set anew at every step; --periodic lets it fire by itself instead, faster than it is read,
which CRIU 4.2.1 does not bring back: a periodic timerfd that has fired and was not read yet never fires again."""

import ctypes
import os
import select
import signal
import struct
import time

from shape import arguments, check, libc, run

options = arguments(lambda parser: parser.add_argument("--periodic", action="store_true"))
beats = 0


def beat(_number: int, _frame: object) -> None:
    global beats
    beats += 1


signal.signal(signal.SIGALRM, beat)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
os.kill(os.getpid(), signal.SIGUSR1)
libc.sigqueue(os.getpid(), signal.SIGRTMIN, ctypes.c_void_p(4711))
timer = libc.timerfd_create(1, 0)
PERIOD = struct.pack("qqqq", 0, 10_000_000, 0, 10_000_000)
ONCE = struct.pack("qqqq", 0, 0, 0, 10_000_000)
libc.timerfd_settime(timer, 0, PERIOD if options.periodic else ONCE, None)


def step(k: int) -> None:
    check(signal.sigpending() == {signal.SIGUSR1, signal.SIGRTMIN}, "the pending signals changed")
    check(signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN, "a signal is no longer ignored")
    os.kill(os.getpid(), signal.SIGUSR2)
    before = beats
    check(select.select([timer], [], [], 2)[0], "the timerfd stands")
    check(struct.unpack("Q", os.read(timer, 8))[0] > 0, "the timerfd counts nothing")
    if not options.periodic:
        libc.timerfd_settime(timer, 0, ONCE, None)
    time.sleep(0.03)
    check(beats > before, "the interval timer stands")


run(step, options)
