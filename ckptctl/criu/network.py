"""Giving a tree that criu has left stopped its TCP connections back, so that it can run on.

With --tcp-established criu puts every connection into repair mode and drops its packets by an nftables table, so that
nothing is lost while the tree is dumped and then ended. It takes both back where it leaves the tree running or fails,
not where it leaves it stopped (criu/cr-dump.c, cr_dump_finish): continued as it is, the tree gets EPERM from send(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptctl.criu.options import Options
from ckptctl.criu.records import Images, InetSocket, SocketState
from ckptctl.errors import CkptctlError, ExitStatus

_TCP_REPAIR: Final = 19  # linux/tcp.h
_SYS_PIDFD_GETFD: Final = 438  # the same on x86-64 and arm64
_TABLE_NAME_BYTES: Final = 31 - len("inet ")  # criu/netfilter.c, nftables_get_table: it is cut off there
_TABLE: Final = re.compile(r"(?<= inet )CRIU-[0-9a-f-]+(?= )")

# linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER: Final = 12
_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_NLMSG_ERROR: Final = 2
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NFTABLES: Final = 10
_DELETE_TABLE: Final = _NFTABLES << 8 | 2
_TABLE_NAME: Final = 1
_FAMILY_INET: Final = 1
_REPAIRED: Final = frozenset(SocketState) - {SocketState.LISTEN, SocketState.CLOSE, SocketState.TIME_WAIT}


class ConnectionsLocked(CkptctlError):
    """The TCP connections of a tree could not be given back to it."""

    code = "E_CONNECTIONS_LOCKED"
    exit_status = ExitStatus.DUMP_FAILED


def release_connections(images: Images, pids: Mapping[int, int]) -> None:
    """Undo what criu has done to the TCP connections of the tree; to be called before the tree is continued.

    `pids` leads from the pids in the images to those seen from here; tasks that are not in it are left out. Looks at
    the real state, so it may be repeated. Raises ConnectionsLocked.
    """
    connections = [one for one in images.open_files.inet_sockets if one.protocol == 6 and one.state in _REPAIRED]
    if not connections:
        return
    try:
        _delete_table(f"CRIU-{images.run_id}"[:_TABLE_NAME_BYTES])
        for connection in connections:
            _end_repair(connection, pids)
    except OSError as error:
        raise _locked(error) from error


def release_unfinished(log_text: str, pids: Iterable[int]) -> None:
    """The same after a criu that was killed: it has left no images that name its connections, only a log.

    `pids` are the processes of the tree as seen from here. Raises ConnectionsLocked.
    """
    try:
        for name in dict.fromkeys(_TABLE.findall(log_text)):
            _delete_table(name)
        for pid in pids:
            _end_repairs(pid)
    except OSError as error:
        raise _locked(error) from error


def _end_repairs(pid: int) -> None:
    """Take every TCP socket of a process out of repair mode."""
    for fd, target in _descriptors(pid):
        if target.startswith("socket:"):
            with _borrow(pid, fd) as borrowed:
                if _is_tcp(borrowed) and borrowed.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
                    borrowed.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)


def _is_tcp(one: socket.socket) -> bool:
    return one.family in (socket.AF_INET, socket.AF_INET6) and one.proto == socket.IPPROTO_TCP


def _descriptors(pid: int) -> list[tuple[int, str]]:
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append((int(entry.name), os.fspath(Path(entry.path).readlink())))
    return found


def _locked(error: OSError) -> ConnectionsLocked:
    return ConnectionsLocked(
        f"The network connections of the job stay locked: {error.strerror}.",
        hint="Run ckptctl as root (CAP_NET_ADMIN) and let it recover the job again.",
    )


def _end_repair(connection: InetSocket, pids: Mapping[int, int]) -> None:
    for use in connection.uses:
        if use.pid in pids:
            with _borrow(pids[use.pid], use.fd) as borrowed:
                if borrowed.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
                    borrowed.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
                    # Repair mode had forced it on, and its end has switched it off.
                    borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(connection.reuses_address))
            return


def _borrow(pid: int, fd: int) -> socket.socket:
    """A socket of another process, shared with it (pidfd_getfd(2)). Raises OSError."""
    process = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        ours = libc.syscall(_SYS_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if ours < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return socket.socket(fileno=ours)


def _delete_table(name: str) -> None:
    """Delete an nftables table of the family inet, if it is there. Raises OSError."""
    text = name.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(text), _TABLE_NAME) + text
    request = (
        _message(_BATCH_BEGIN, 0, 0, _NFTABLES)
        + _message(_DELETE_TABLE, _NLM_F_ACK, _FAMILY_INET, 0, attribute + bytes(-len(attribute) % 4))
        + _message(_BATCH_END, 0, 0, _NFTABLES)
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.send(request)
        answer = netlink.recv(1 << 16)
    _, kind, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    # No such table: another lock was used, or it is gone already.
    if kind == _NLMSG_ERROR and code not in (0, -errno.ENOENT):
        raise OSError(-code, os.strerror(-code))


def _message(kind: int, flags: int, family: int, resource: int, attributes: bytes = b"") -> bytes:
    body = struct.pack("=BB", family, 0) + struct.pack(">H", resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, 0, 0) + body


def leads_outside(images: Images) -> bool:
    """Whether a connection of the tree has its other end outside: the packet filter must then stay for the restore."""
    connections = [one for one in images.open_files.inet_sockets if one.protocol == 6 and one.state in _REPAIRED]
    ends = {(one.local_address, one.local_port) for one in connections}
    return any((one.remote_address, one.remote_port) not in ends for one in connections)


def unheld(images: Images, options: Options) -> Iterator[str]:
    """What to say where connections to the outside were dumped without a lock: opened too late for one."""
    if any(option.words == ("--network-lock", "skip") for option in options.chosen) and leads_outside(images):
        yield (
            "A TCP connection that leads out of the job was not held still during the dump: restored, the job may see "
            "it reset."
        )
