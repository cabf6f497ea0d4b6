"""The frame of every shape: a program that holds something which is hard to save, and counts.

    python tests/shapes/NAME.py LOG [--seconds N] [more]

How a shape is judged, by its LOG alone (`support.shapes.judge` does it):
- the first line is `ready`, written once everything is set up;
- then line k, from 1 on, is `k HASH`, where HASH comes from line k-1's: a state that lives in memory alone, so that a
  process that began anew, or skipped or repeated a step, betrays itself;
- before each line the shape checks what it holds (lock still held, child still answering, memory intact); the first
  thing amiss is written as `BROKEN what`, and the shape ends with status 1;
- a shape that this kernel does not let be ends with status 77 before `ready`;
- on SIGUSR1 the shape closes every descriptor but its log, no longer checks what it held, and goes on counting;
- after N seconds the last line is `done`, and the shape ends with status 0.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

TICK_S = 0.02
UNAVAILABLE = 77
PR_SET_PDEATHSIG = 1
Step = Callable[[int], None]
libc = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """Something that the shape holds is not as it must be."""


def check(holds: object, what: str) -> None:
    """Raise Broken with `what` unless `holds`."""
    if not holds:
        raise Broken(what)


def need(there: object, what: str) -> None:
    """End with status 77 unless the kernel offers `what`: the shape cannot be had here."""
    if not there:
        print(f"there is {what} here: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
        end(UNAVAILABLE)


def arguments(add: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """LOG and --seconds, and what the shape adds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--seconds", type=float, default=60.0)
    if add is not None:
        add(parser)
    return parser.parse_args()


def run(step: Step, options: argparse.Namespace, log: IO[str] | None = None) -> None:
    """Write `ready` and then a line for each `step(k)`, until the seconds are over; never returns."""
    began = time.monotonic()
    log = log or open(options.log, "a", buffering=1)
    let_go: list[int] = []
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda number, frame: let_go.append(number))
    log.write("ready\n")
    value, k = b"", 0
    try:
        while time.monotonic() - began < options.seconds:
            k += 1
            if let_go:
                step = close_all_but(log.fileno())
                let_go.clear()
            step(k)
            value = hashlib.sha256(value + str(k).encode()).digest()
            log.write(f"{k} {value.hex()[:16]}\n")
            time.sleep(TICK_S)
    except Exception as error:
        log.write(f"BROKEN {type(error).__name__}: {error}\n")
        end(1)
    log.write("done\n")
    end(0)


def close_all_but(kept: int) -> Step:
    """Let go of what the shape holds; what it does from now on at each step: nothing."""
    os.closerange(3, kept)
    os.closerange(kept + 1, 1024)
    return lambda k: None


def end(status: int) -> None:
    """End this process and every process that it started with `child`."""
    for pid in _children:
        os.kill(pid, signal.SIGKILL)
    os._exit(status)


_children: list[int] = []


def child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own, which dies with this one."""
    pid = os.fork()
    if pid == 0:
        _children.clear()
        die_with_parent()
        _work(work)
    _children.append(pid)
    return pid


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def stranger(work: Callable[[], None], seconds: float) -> None:
    """Run `work` in a process outside the tree: an orphan with a session of its own, that lives so long at most."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            signal.alarm(int(seconds) + 1)
            _work(work)
        os._exit(0)
    os.waitpid(pid, 0)


def _work(work: Callable[[], None]) -> None:
    status = 1
    try:
        work()
        status = 0
    except (EOFError, ConnectionError, BrokenPipeError):
        status = 0
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def read_exactly(fd: int, count: int) -> bytes:
    """`count` bytes from a descriptor; EOFError where it ends before."""
    data = b""
    while len(data) < count:
        piece = os.read(fd, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def answer(k: int) -> bytes:
    """What a partner answers to step k: eight bytes that it must compute."""
    return hashlib.sha256(b"answer %d" % k).digest()[:8]


def serve(receive: int, send: int) -> None:
    """A partner: reads step numbers of eight bytes, answers each."""
    while True:
        os.write(send, answer(int.from_bytes(read_exactly(receive, 8), "big")))


def ask(k: int, send: int, receive: int) -> None:
    """Ask the partner behind these descriptors, and check what it says."""
    os.write(send, k.to_bytes(8, "big"))
    check(read_exactly(receive, 8) == answer(k), f"wrong answer to {k}")
