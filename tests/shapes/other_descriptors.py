"""One descriptor of a rarer kind (--kind): pidfd, fanotify, namespace, path, folder, proc, vsock, packet, raw."""

import ctypes
import os
import socket

from shape import arguments, check, libc, run

KINDS = (
    "pidfd",
    "fanotify",
    "namespace",
    "path",
    "folder",
    "proc",
    "vsock",
    "packet",
    "raw",
    "ping",
    "mptcp",
    "memfd_secret",
    "landlock",
    "mqueue",
    "aio",
)
options = arguments(lambda parser: parser.add_argument("--kind", choices=KINDS, default="pidfd"))


def open_it() -> int:
    if options.kind == "pidfd":
        return os.pidfd_open(os.getpid())
    if options.kind == "fanotify":
        return int(libc.fanotify_init(0, 0))
    if options.kind == "namespace":
        return os.open("/proc/self/ns/net", os.O_RDONLY)
    if options.kind == "path":
        return os.open("/etc/passwd", os.O_PATH)
    if options.kind == "folder":
        return os.open("/etc", os.O_RDONLY)
    if options.kind == "proc":
        return os.open("/proc/self/status", os.O_RDONLY)
    if options.kind == "memfd_secret":
        return int(libc.syscall(447, 0))
    if options.kind == "landlock":
        return int(libc.syscall(444, ctypes.create_string_buffer(b"\1" + bytes(7), 8), 8, 0))
    if options.kind == "mqueue":
        return int(libc.mq_open(b"/shape", os.O_RDWR | os.O_CREAT, 0o600, None))
    if options.kind == "aio":
        return 0 if libc.syscall(206, 8, ctypes.create_string_buffer(8)) == 0 else -1
    families = {
        "vsock": (40, socket.SOCK_STREAM, 0),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
        "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
        "mptcp": (socket.AF_INET, socket.SOCK_STREAM, 262),
        "ping": (socket.AF_INET, socket.SOCK_DGRAM, 1),
    }
    return socket.socket(*families[options.kind]).detach()


descriptor = open_it()
check(descriptor >= 0, f"no {options.kind}: {os.strerror(ctypes.get_errno())}")
run(lambda k: check(os.fstat(descriptor), "the descriptor is gone"), options)
