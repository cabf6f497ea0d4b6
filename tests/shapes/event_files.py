"""An epoll over an eventfd, a pipe, a timer and a signalfd, all of which must still fire."""

import ctypes
import os
import select
import signal
import struct

from shape import arguments, check, libc, run

options = arguments()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
mask = struct.pack("Q", 1 << (signal.SIGUSR1 - 1))
signals = libc.signalfd(-1, ctypes.create_string_buffer(mask, 128), 0)
events = os.eventfd(0)
read, write = os.pipe()
timer = libc.timerfd_create(1, 0)
poll = select.epoll()
for descriptor in (events, read, timer, signals):
    poll.register(descriptor, select.EPOLLIN)


def step(k: int) -> None:
    os.eventfd_write(events, k)
    os.write(write, b"x")
    libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, 1), None)
    os.kill(os.getpid(), signal.SIGUSR1)
    fired: set[int] = set()
    while len(fired) < 4:
        ready = {descriptor for descriptor, _ in poll.poll(5)}
        check(ready, "epoll says nothing")
        fired |= ready
    check(os.eventfd_read(events) == k, "the eventfd counts wrongly")
    for descriptor, size in ((read, 1), (timer, 8), (signals, 128)):
        check(len(os.read(descriptor, size)) == size, f"descriptor {descriptor} gave too little")


run(step, options)
