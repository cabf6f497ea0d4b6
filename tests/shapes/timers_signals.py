"""An interval timer, POSIX and file timers, a blocked signal that stays pending, with its value, and an ignored one."""

import ctypes
import os
import signal
import struct

from shape import arguments, check, libc, run

options = arguments()
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
libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 10_000_000, 0, 10_000_000), None)


def step(k: int) -> None:
    check(signal.sigpending() == {signal.SIGUSR1, signal.SIGRTMIN}, "the pending signals changed")
    check(signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN, "a signal is no longer ignored")
    os.kill(os.getpid(), signal.SIGUSR2)
    before = beats
    check(struct.unpack("Q", os.read(timer, 8))[0] > 0, "the file timer stands")
    signal.sigtimedwait({signal.SIGRTMAX}, 0.03) if before == beats else None
    check(beats > 0 and signal.getitimer(signal.ITIMER_REAL)[1] == 0.01, "the interval timer stands")


run(step, options)
