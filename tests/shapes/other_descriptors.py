"""One descriptor of a rarer kind (--kind)."""

import ctypes
import os
import socket
from collections.abc import Callable

from shape import arguments, check, libc, need, run


def message_queue() -> int:
    queue = int(libc.mq_open(b"/shape", os.O_RDWR | os.O_CREAT, 0o600, None))
    libc.mq_unlink(b"/shape")
    return queue


def asynchronous_io() -> int:
    """A context, which is no descriptor: CRIU saves its ring."""
    return 0 if libc.syscall(206, 8, ctypes.create_string_buffer(8)) == 0 else -1


def rule_set() -> int:
    return int(libc.syscall(444, ctypes.create_string_buffer(b"\1" + bytes(7), 8), 8, 0))


def opened(path: str, flags: int = os.O_RDONLY) -> Callable[[], int]:
    return lambda: os.open(path, flags)


def sock(family: int, kind: int, protocol: int = 0) -> Callable[[], int]:
    return lambda: socket.socket(family, kind, protocol).detach()


KINDS = {
    "pidfd": lambda: os.pidfd_open(os.getpid()),
    "fanotify": lambda: libc.fanotify_init(0, 0),
    "namespace": opened("/proc/self/ns/net"),
    "path": opened("/etc/passwd", os.O_PATH),
    "folder": opened("/etc"),
    "proc": opened("/proc/self/status"),
    "memfd_secret": lambda: libc.syscall(447, 0),
    "landlock": rule_set,
    "mqueue": message_queue,
    "aio": asynchronous_io,
    "vsock": sock(40, socket.SOCK_STREAM),
    "packet": sock(socket.AF_PACKET, socket.SOCK_RAW),
    "raw": sock(socket.AF_INET, socket.SOCK_RAW, 1),
    "mptcp": sock(socket.AF_INET, socket.SOCK_STREAM, 262),
}
options = arguments(lambda parser: parser.add_argument("--kind", choices=KINDS, default="pidfd"))
try:
    descriptor = KINDS[options.kind]()
except OSError:
    descriptor = -1
need(descriptor >= 0, f"no {options.kind}")
run(lambda k: check(os.fstat(descriptor), "the descriptor is gone"), options)
