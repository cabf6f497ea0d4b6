"""Checks of what a tree is connected to: sockets, pipes, terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Check, Problem
from ckptctl.preflight.finding import Level
from ckptctl.process.files import FileKind
from ckptctl.process.outside import Holder
from ckptctl.process.sockets import SocketType, TcpState, UnixSocket
from ckptctl.process.tree import Pipe, Tree

_GROUP: Final = "connections"
# The kernel's names of what CRIU saves beside unix, TCP and UDP sockets (criu/sockets.c, criu/sk-inet.c).
_SAVABLE: Final = frozenset({"NETLINK", "PACKET", "RAW", "RAWv6", "UDP-Lite", "UDPLITEv6", "UDPLite"})
# Sockets that have neither been bound nor connected are in no table of /proc; CRIU saves them by these names.
_UNBOUND: Final = frozenset({"TCP", "TCPv6", "UDP", "UDPv6", "UNIX", "UNIX-STREAM"})


def _unix_streams(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for item in tree.sockets.unix:
        if item.type is not SocketType.DATAGRAM and item.peer_inside is False:
            where = _outside(tree, item)
            name = item.path or item.peer_path
            yield Problem(
                Level.ERROR,
                f"Process {_label(tree, item.holders)} is connected by a unix socket{f' ({name})' if name else ''} to"
                f" {where}.",
                _socket_data(item),
            )


def _unix_unaccepted(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    """The server's end has no inode yet: CRIU finds no peer for ours, dumps it, and fails at the restore."""
    pending = {inode for item in tree.sockets.unix for inode in item.pending_inodes}
    for item in tree.sockets.unix:
        waits = item.state is TcpState.ESTABLISHED and item.peer_inode == 0 and not item.shut_down
        if item.type is not SocketType.DATAGRAM and waits and item.inode not in pending:
            yield Problem(
                Level.ERROR,
                f"Process {_label(tree, item.holders)} has called a unix socket outside the tree that has not"
                " answered yet.",
                _socket_data(item),
            )


def _unix_datagrams(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for item in tree.sockets.unix:
        named = item.peer_path is not None and item.peer_path.startswith(("/", "@"))
        if item.type is SocketType.DATAGRAM and item.peer_inside is False and not named:
            name = f"by the relative name {item.peer_path}" if item.peer_path else "without a name"
            yield Problem(
                Level.ERROR,
                f"Process {_label(tree, item.holders)} sends to a unix socket {name}, of {_outside(tree, item)}.",
                _socket_data(item),
            )


def _families(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for item in tree.sockets.other:
        if item.protocol and item.protocol not in _SAVABLE | _UNBOUND:
            remedy = (
                'Start Go programs with GODEBUG="multipathtcp=0", others without multipath TCP.'
                if item.protocol.startswith("MPTCP")
                else None
            )
            yield Problem(
                Level.ERROR,
                f"Process {_label(tree, item.holders)} holds a socket of the kind {item.protocol}.",
                (("pid", str(item.holders[0])), ("inode", str(item.inode)), ("protocol", item.protocol)),
                remedy,
            )


def _tcp_outside(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for item in tree.sockets.inet:
        if item.connected and not item.peer_inside:
            host, port = item.remote
            yield Problem(
                Level.WARNING,
                f"Process {_label(tree, item.holders)} is connected to {host} port {port} outside the tree: a restore"
                " here goes on with the connection while the other side waits for it; later, the job sees it reset.",
                (("pid", str(item.holders[0])), ("remote", f"{host} {port}"), ("local", "{} {}".format(*item.local))),
            )


def _network_lock(tree: Tree, machine: Machine) -> Iterator[Problem]:
    outside = [item for item in tree.sockets.inet if item.connected and not item.peer_inside]
    if outside and not (machine.nftables or (machine.iptables and "CAP_NET_ADMIN" in machine.capabilities)):
        yield Problem(
            Level.WARNING,
            f"{len(outside)} TCP connections leave the tree, and there is neither nftables nor iptables to hold them"
            " still: the other side is told that they are gone as soon as it sends anything.",
        )


def _pipes(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for pipe in tree.pipes:
        if pipe.outside is not None:
            reads = bool(pipe.readers)
            yield Problem(
                Level.WARNING,
                f"Process {_label(tree, pipe.readers or pipe.writers)} {'reads from' if reads else 'writes to'}"
                f" {_holder(pipe.outside)} by a pipe ({_descriptors(tree, pipe)}): a restore cannot bring that one back"
                f" and {'ends what is read there' if reads else 'sends what is written there elsewhere'}.",
                (("pipe", pipe.name), ("outside", str(pipe.outside.pid))),
            )


def _terminals(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for terminal in tree.terminals:
        if not terminal.master_inside and terminal.holders:
            yield Problem(
                Level.WARNING,
                f"Process {_label(tree, terminal.holders)} has the terminal {terminal.path} of a process outside the"
                " tree: a restore gives it another one.",
                (("terminal", terminal.path), ("pids", ", ".join(map(str, terminal.holders)))),
            )


def _label(tree: Tree, pids: tuple[int, ...]) -> str:
    process = tree.process(pids[0])
    more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
    return f"{process.label if process else pids[0]}{more}"


def _outside(tree: Tree, item: UnixSocket) -> str:
    target = f"socket:[{item.peer_inode}]"
    holder = next((one for one in tree.peers_outside if one.wanted.target == target), None)
    return f"{_holder(holder)} outside the tree" if holder else "a process outside the tree"


def _holder(holder: Holder) -> str:
    return f"process {holder.pid} ({holder.comm})"


def _socket_data(item: UnixSocket) -> tuple[tuple[str, str], ...]:
    return (
        ("pid", str(item.holders[0])),
        ("inode", str(item.inode)),
        ("peer", str(item.peer_inode)),
        ("path", item.path or item.peer_path or ""),
    )


def _descriptors(tree: Tree, pipe: Pipe) -> str:
    numbers = sorted({file.fd for _, file in tree.files(FileKind.PIPE) if file.inode == pipe.inode})
    return f"descriptor {', '.join(map(str, numbers))}"


CHECKS: Final = (
    Check(
        "unix-stream-outside",
        _GROUP,
        "CRIU cannot save half of a unix connection: the dump would fail.",
        "No unix connection leaves the tree.",
        "Let the job close the connection before the dump, start the process at its other end as part of the job, or"
        " send the job's output to a file where it goes to a service.",
        _unix_streams,
    ),
    Check(
        "unix-unaccepted",
        _GROUP,
        "CRIU dumps a unix connection that nobody has accepted yet, and then cannot restore it.",
        "No unix connection waits to be accepted outside the tree.",
        "Let the job close that connection, or end the service that does not answer.",
        _unix_unaccepted,
    ),
    Check(
        "unix-datagram-outside",
        _GROUP,
        "CRIU finds the other end of a datagram socket by its absolute name: without one dump or restore would fail.",
        "Every datagram socket sends to one that can be found again.",
        "Let the job close the socket, or have the service listen at an absolute path.",
        _unix_datagrams,
    ),
    Check(
        "socket-kind",
        _GROUP,
        "CRIU saves unix, TCP, UDP, raw, packet and netlink sockets: the dump would fail on any other.",
        "All sockets are of kinds that can be saved.",
        "Let the job close the socket before the dump.",
        _families,
    ),
    Check(
        "tcp-outside",
        _GROUP,
        "A connection to another host or process is only half saved: whether it goes on depends on the other half.",
        "No TCP connection leaves the tree.",
        "Restore on this host and soon, or see to it that the job connects again after a reset, as trackers do.",
        _tcp_outside,
    ),
    Check(
        "network-lock",
        _GROUP,
        "Connections that leave the tree must be held still while it is away.",
        "Connections can be held still, or none leaves the tree.",
        "Run as root on a kernel with nftables, or install iptables.",
        _network_lock,
    ),
    Check(
        "pipe-outside",
        _GROUP,
        "A restored job would die of its first write to a pipe that nobody reads.",
        "No pipe leaves the tree.",
        "Start the job with its output appended to a file (>>), not piped to another program.",
        _pipes,
    ),
    Check(
        "terminal-outside",
        _GROUP,
        "A terminal belongs to the program that shows it, which is not saved.",
        "No process has a terminal of a process outside.",
        "Start the job without a terminal: setsid COMMAND >>LOG 2>&1 </dev/null.",
        _terminals,
    ),
)
