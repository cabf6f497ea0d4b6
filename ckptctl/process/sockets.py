"""The sockets of a tree and their peers: /proc/PID/net for internet sockets, sock_diag(7) for unix sockets.

The kernel tells the peers of unix sockets of our own network namespace only; elsewhere they stay unknown.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Final

from ckptctl.process import proc


class SocketType(IntEnum):
    """The types of socket(2)."""

    STREAM = 1
    DATAGRAM = 2
    SEQUENCED = 5


class TcpState(IntEnum):
    """The states of a TCP socket, as in /proc/net/tcp; unix sockets use ESTABLISHED, CLOSED and LISTEN alone."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECEIVED = 12


class Protocol(Enum):
    """The internet protocols that a training job speaks."""

    TCP = "tcp"
    UDP = "udp"


# What of a socket's state makes it a connection that CRIU treats as such (criu/sk-inet.c, can_dump_inet_sk).
CONNECTED_STATES: Final = frozenset(
    {
        TcpState.ESTABLISHED,
        TcpState.SYN_SENT,
        TcpState.FIN_WAIT1,
        TcpState.FIN_WAIT2,
        TcpState.CLOSE_WAIT,
        TcpState.LAST_ACK,
        TcpState.CLOSING,
    }
)


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """One end of a unix socket that the tree holds.

    `path` begins with `@` where the name is abstract, and is None where there is none. `peer_inode` is 0 where the
    socket has no peer that could be named, and None where that is not known; `peer_inside` likewise.
    `pending_inodes` are the clients of a listening socket that were not accepted yet. `shut_down` says that nothing
    can come in any more, because the peer has closed its end.
    """

    inode: int
    type: SocketType
    state: TcpState
    path: str | None
    peer_inode: int | None
    peer_path: str | None
    peer_inside: bool | None
    pending_inodes: tuple[int, ...]
    shut_down: bool
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A TCP or UDP socket that the tree holds; `waiting` counts connections that were not accepted yet."""

    inode: int
    protocol: Protocol
    version: int
    state: TcpState
    local: tuple[str, int]
    remote: tuple[str, int]
    peer_inside: bool
    waiting: int
    holders: tuple[int, ...]

    @property
    def connected(self) -> bool:
        return self.protocol is Protocol.TCP and self.state in CONNECTED_STATES


@dataclass(frozen=True, slots=True)
class OtherSocket:
    """A socket of another family; `protocol` is the kernel's name for it, such as NETLINK."""

    inode: int
    protocol: str
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sockets:
    """All sockets of a tree."""

    unix: tuple[UnixSocket, ...]
    inet: tuple[InetSocket, ...]
    other: tuple[OtherSocket, ...]


# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x1 | 0x300
_ERROR, _DONE = 2, 3
_SHOW_NAME_PEER_PENDING: Final = 0x1 | 0x4 | 0x8
_NAME, _PEER, _PENDING, _SHUTDOWN = 0, 2, 3, 6
_SHUT_RECEIVING: Final = 1
_ALL_STATES: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBHIIIQ")
_UNIX_MESSAGE: Final = struct.Struct("=BBBBIII")
_ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class _UnixEntry:
    """What the kernel tells of one unix socket of this network namespace."""

    inode: int
    type: int
    state: int
    path: str | None
    peer: int
    pending: tuple[int, ...]
    shut_down: bool


def read_sockets(holders: Mapping[int, tuple[int, ...]], names: Mapping[int, str]) -> Sockets:
    """Look up sockets by inode: `holders` are the pids that hold each, `names` the kernel's protocol names."""
    internet = _inet_sockets(holders)
    unix = _unix_sockets({inode: pids for inode, pids in holders.items() if names[inode].startswith("UNIX")})
    known = {item.inode for item in unix} | {item.inode for item in internet}
    other = [OtherSocket(inode, names[inode], pids) for inode, pids in holders.items() if inode not in known]
    return Sockets(unix, internet, tuple(other))


def protocol_name(pid: int, fd: int) -> str:
    """The kernel's name of a socket's protocol (`TCP`, `UNIX`, `NETLINK`); empty where it will not tell."""
    with contextlib.suppress(OSError):
        return os.getxattr(f"/proc/{pid}/fd/{fd}", "system.sockprotoname").rstrip(b"\0").decode()
    return ""


def _unix_sockets(holders: Mapping[int, tuple[int, ...]]) -> tuple[UnixSocket, ...]:
    if not holders:
        return ()
    entries = {entry.inode: entry for entry in _unix_entries()}
    return tuple(_unix_socket(inode, pids, entries, holders) for inode, pids in holders.items())


def _unix_socket(
    inode: int, pids: tuple[int, ...], entries: Mapping[int, _UnixEntry], holders: Mapping[int, tuple[int, ...]]
) -> UnixSocket:
    entry = entries.get(inode)
    if entry is None:
        return UnixSocket(inode, SocketType.STREAM, TcpState.ESTABLISHED, None, None, None, None, (), False, pids)
    return UnixSocket(
        inode,
        SocketType(entry.type),
        TcpState(entry.state),
        entry.path,
        entry.peer,
        entries[entry.peer].path if entry.peer in entries else None,
        entry.peer in holders if entry.peer else None,
        entry.pending,
        entry.shut_down,
        pids,
    )


def _unix_entries() -> Iterator[_UnixEntry]:
    """Every unix socket of our network namespace; nothing where the kernel lacks unix_diag."""
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_NAME_PEER_PENDING, 0)
    request = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diagnosis:
            diagnosis.send(request)
            while True:
                for kind, payload in _messages(diagnosis.recv(1 << 17)):
                    if kind in (_DONE, _ERROR):
                        return
                    yield _unix_entry(payload)
    except OSError:
        return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _unix_entry(payload: bytes) -> _UnixEntry:
    _family, kind, state, _pad, inode, *_cookie = _UNIX_MESSAGE.unpack_from(payload)
    attributes = dict(_attributes(payload[_UNIX_MESSAGE.size :]))
    name = attributes.get(_NAME)
    peer = attributes.get(_PEER, b"\0\0\0\0")
    pending = attributes.get(_PENDING, b"")
    return _UnixEntry(
        inode,
        kind,
        state,
        _unix_path(name) if name else None,
        int.from_bytes(peer[:4], sys.byteorder),
        struct.unpack(f"={len(pending) // 4}I", pending),
        bool(attributes.get(_SHUTDOWN, b"\0")[0] & _SHUT_RECEIVING),
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    """Netlink messages and attributes begin at multiples of four."""
    return (length + 3) & ~3


def _unix_path(name: bytes) -> str:
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text.rstrip("\0")


def _inet_sockets(holders: Mapping[int, tuple[int, ...]]) -> tuple[InetSocket, ...]:
    rows = list(_inet_rows(holders))
    ends = {(row.protocol, row.local, row.remote) for row in rows}
    listening = {row.local for row in rows if row.state is TcpState.LISTEN}
    return tuple(replace(row, peer_inside=_peer_inside(row, ends, listening)) for row in rows)


def _peer_inside(
    row: InetSocket, ends: set[tuple[Protocol, tuple[str, int], tuple[str, int]]], listening: set[tuple[str, int]]
) -> bool:
    """Whether the other end is in the tree too, be it one that its listening socket has not accepted yet."""
    if (row.protocol, row.remote, row.local) in ends:
        return True
    port = row.remote[1]
    return row.connected and any((host, port) in listening for host in (row.remote[0], "0.0.0.0", "::"))


def _inet_rows(holders: Mapping[int, tuple[int, ...]]) -> Iterator[InetSocket]:
    """The sockets of every network namespace in which one of the holders lives, each read through one holder."""
    namespaces: dict[str | None, int] = {}
    for pid in {pid for pids in holders.values() for pid in pids}:
        with contextlib.suppress(proc.Vanished):
            namespaces.setdefault(proc.link(f"/proc/{pid}/ns/net"), pid)
    for pid in namespaces.values():
        for name, protocol, version in _TABLES:
            with contextlib.suppress(proc.Vanished):
                for line in proc.read(f"/proc/{pid}/net/{name}").splitlines()[1:]:
                    row = _inet_row(line.split(), protocol, version, holders)
                    if row is not None:
                        yield row


_TABLES: Final = (
    ("tcp", Protocol.TCP, 4),
    ("tcp6", Protocol.TCP, 6),
    ("udp", Protocol.UDP, 4),
    ("udp6", Protocol.UDP, 6),
    ("udplite", Protocol.UDP, 4),
    ("udplite6", Protocol.UDP, 6),
)


def _inet_row(
    words: list[str], protocol: Protocol, version: int, holders: Mapping[int, tuple[int, ...]]
) -> InetSocket | None:
    """A line of /proc/net/tcp and its like (proc_net(5)): addresses in words of the host's byte order."""
    inode = int(words[9])
    if inode not in holders:
        return None
    state = TcpState(int(words[3], 16))
    waiting = int(words[4].split(":")[1], 16) if state is TcpState.LISTEN else 0
    return InetSocket(
        inode, protocol, version, state, _address(words[1]), _address(words[2]), False, waiting, holders[inode]
    )


def _address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` as an address and a port; an IPv4 address in IPv6 clothes as IPv4, so that peers are found."""
    host, port = text.split(":")
    raw = bytes.fromhex(host)
    count = len(raw) // 4
    words = struct.unpack(f">{count}I", raw)
    address = ipaddress.ip_address(struct.pack(f"={count}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)
