"""Which options of CRIU a tree needs, and why: nobody should have to know them.

Most are chosen for what is there. A few are given to every tree, since what they are for may appear between the look
at the tree and its freezing (a connection, a lock), and they change nothing where it does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from ckptctl.criu.options import Option, Options
from ckptctl.criu.program import Criu, knows
from ckptctl.host.machine import Machine
from ckptctl.process.files import FileKind
from ckptctl.process.sockets import InetSocket, Protocol, SocketType, TcpState
from ckptctl.process.tree import Tree

_ASKED: Final = "asked for on the command line"
_GHOST_FLOOR_BYTES: Final = 1 << 30
_TIMEOUT_FLOOR_S: Final = 60
_THREADS_PER_SECOND: Final = 50
# Options that exclude each other: the one that the user asks for pushes the other out.
_RIVALS: Final = {"--tcp-close": "--tcp-established", "--tcp-established": "--tcp-close"}
# Options that may be given several times, for different things (criu/config.c): one more does not replace the others.
_REPEATABLE: Final = frozenset({"--external", "--inherit-fd", "--join-ns", "--skip-mnt", "--enable-fs"})
_DIRECT_IO: Final = "--image-io-mode"
# CRIU refuses this at a dump: "only valid on restore".
_RESTORE_ONLY: Final = frozenset({"--mntns-compat-mode"})


def choose_options(tree: Tree, machine: Machine, extra: tuple[str, ...] = ()) -> Options:
    """The options that `criu dump` and `criu restore` need for this tree on this machine.

    `extra` are options that the user adds (`--ghost-limit 5G` or `--ghost-limit=5G`): they take the place of chosen
    ones of the same name.
    """
    return with_asked(Options(tuple(_choose(tree, machine))), extra)


def with_asked(options: Options, extra: tuple[str, ...]) -> Options:
    """The options, and those that the user asks for: they take the place of others of the same name, and of rivals.

    `options` are chosen ones, or at a restore those that were recorded at the dump.
    """
    asked = tuple(_asked(text) for text in extra)
    names = {_name(option) for option in asked} - _REPEATABLE
    replaced = names | {_RIVALS[name] for name in names if name in _RIVALS}
    return Options((*(option for option in options.chosen if _name(option) not in replaced), *asked))


def with_direct_io(options: Options, criu: Criu) -> Options:
    """The options, and for images that criu writes itself the one that keeps them out of the page cache.

    No CRIU up to 4.2.1 has it. Those that do go on through the page cache where a file system refuses
    (criu/page-xfer.c, write_pages_loc). A restore reads what ckptctl has just read to check it, so there it stays away.
    """
    if not knows(criu, _DIRECT_IO):
        return options
    reason = "images need not pass through the page cache, which the job has a use for"
    return Options((Option(_DIRECT_IO, "direct", reason, on_restore=False), *options.chosen))


def _choose(tree: Tree, machine: Machine) -> Iterator[Option]:
    yield from _shell_job(tree)
    yield from _terminals(tree)
    yield from _connections(tree, machine)
    yield from _unix_sockets(tree)
    yield _file_locks(tree)
    yield _link_remap(tree)
    yield _ghost_limit(tree)
    yield Option(
        "--manage-cgroups=ignore",  # one word: its value is optional, and getopt takes such values no other way
        None,
        "the job's control groups belong to whoever started it (Slurm, systemd, Kubernetes); restored, it joins those"
        " in which the restore runs",
    )
    yield _timeout(tree)


def _shell_job(tree: Tree) -> Iterator[Option]:
    """Without it CRIU refuses a root that leads no session."""
    if not tree.root.leads_session:
        yield Option(
            "--shell-job", None, f"process {tree.root.label} belongs to session {tree.root.session_id}, not its own"
        )


def _terminals(tree: Tree) -> Iterator[Option]:
    """A terminal served from outside is named, so that the restore can give the job another one.

    With --shell-job alone CRIU would take the terminal that it is started from itself, and fail from cron or Slurm.
    """
    outside = {terminal.path for terminal in tree.terminals if not terminal.master_inside}
    named: set[str] = set()
    for process, file in tree.files(FileKind.TERMINAL):
        if file.path not in outside or file.special is None:
            continue
        key = f"tty[{os.makedev(*file.special):x}:{file.device:x}]"
        if key not in named:
            named.add(key)
            reason = f"process {process.label} has the terminal {file.path}, served by a process outside the tree"
            yield Option("--external", key, reason, on_restore=False)


def _connections(tree: Tree, machine: Machine) -> Iterator[Option]:
    """Connections are kept, also those that leave the tree, rather than closed by --tcp-close.

    Inside the tree closing them would end the job. A peer outside, on the same host and while it waits, goes on as if
    nothing had happened; where it has given up, the job sees the same error as after --tcp-close. And a dump with
    --tcp-established can be restored with --tcp-close, on another host say, while the reverse is refused.
    """
    connected = [item for item in tree.sockets.inet if item.connected]
    listening = [item for item in tree.sockets.inet if _listens(item)]
    reason = _connection_reason(connected[0]) if connected else "a connection may be opened before the tree is frozen"
    yield Option("--tcp-established", None, reason)
    yield _network_lock(tree, machine)
    if listening:
        yield Option(
            "--skip-in-flight",
            None,
            f"the tree listens on {_address(listening[0].local)}: whoever has connected there and was not accepted yet"
            " has to connect again",
        )


def _connection_reason(item: InetSocket) -> str:
    where = "inside the tree" if item.peer_inside else "outside the tree"
    return f"process {item.holders[0]} is connected to {_address(item.remote)}, {where}"


def _listens(item: InetSocket) -> bool:
    return item.protocol is Protocol.TCP and item.state is TcpState.LISTEN


def _address(end: tuple[str, int]) -> str:
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _network_lock(tree: Tree, machine: Machine) -> Option:
    """How connections are held still: without that, a packet that arrives meanwhile is answered by a reset.

    A tree without TCP goes without: criu sets up its nftables table while the tree stands still, connections or not,
    and the kernel waits for all processors at each change of it. Measured: 0.25 s of the pause.
    """
    if not any(item.protocol is Protocol.TCP for item in tree.sockets.inet):
        return Option(
            "--network-lock", "skip", "the tree has no TCP socket, and to set up the lock lengthens its pause"
        )
    if machine.nftables:
        return Option("--network-lock", "nftables", "the kernel has nftables, and criu needs no program for it")
    if machine.iptables and "CAP_NET_ADMIN" in machine.capabilities:
        return Option("--network-lock", "iptables", "the kernel offers no nftables, but there is iptables-restore")
    return Option(
        "--network-lock",
        "skip",
        "neither nftables nor iptables can be used here; connections inside the tree need none",
    )


def _unix_sockets(tree: Tree) -> Iterator[Option]:
    for item in tree.sockets.unix:
        if item.type is SocketType.DATAGRAM and item.peer_inside is False:
            reason = f"process {item.holders[0]} sends to a unix socket outside the tree (inode {item.peer_inode})"
            yield Option("--ext-unix-sk", None, reason)
            return


def _file_locks(tree: Tree) -> Option:
    lock = next(iter(tree.locks), None)
    if lock is None:
        return Option("--file-locks", None, "a lock may be taken before the tree is frozen")
    return Option("--file-locks", None, f"process {lock.pid} holds a lock ({lock.kind.value}) on {lock.path}")


def _link_remap(tree: Tree) -> Option:
    """For files that are open by a name that is gone while another remains; CRIU makes one more beside it."""
    for process, file in tree.files(FileKind.REGULAR):
        if file.deleted and file.links > 0:
            return _linked(process.pid, file.path)
    for process in tree.processes:
        for mapping in process.mappings:
            if mapping.deleted and mapping.links:
                return _linked(process.pid, mapping.path)
    reason = "a file that is open may be renamed or linked before the tree is frozen"
    return Option("--link-remap", None, reason, on_restore=False)


def _linked(pid: int, path: str) -> Option:
    reason = f"process {pid} uses {path}, whose name is gone while another name of the file remains"
    return Option("--link-remap", None, reason, on_restore=False)


def _ghost_limit(tree: Tree) -> Option:
    """CRIU refuses deleted files above 1 MiB by default; the space that they need is checked elsewhere."""
    largest, pid, path = max(_deleted(tree), default=(0, 0, ""))
    limit = max(_GHOST_FLOOR_BYTES, 2 * largest)
    reason = (
        f"process {pid} uses the deleted file {path} of {largest} bytes, which may grow until the tree is frozen"
        if largest
        else "a file may be deleted while open before the tree is frozen"
    )
    return Option("--ghost-limit", str(limit), reason, on_restore=False)


def _deleted(tree: Tree) -> Iterator[tuple[int, int, str]]:
    for process, file in tree.files(FileKind.REGULAR):
        if file.links == 0:
            yield file.size_bytes, process.pid, file.path
    for process in tree.processes:
        for mapping in process.mappings:
            if mapping.deleted and mapping.links == 0:
                yield mapping.size_bytes or mapping.length_bytes, process.pid, mapping.path


def _timeout(tree: Tree) -> Option:
    threads = len(tree.thread_ids)
    seconds = _TIMEOUT_FLOOR_S + threads // _THREADS_PER_SECOND
    reason = "freezing the job on a busy machine may take longer than criu's 10 s"
    return Option("--timeout", str(seconds), reason, on_restore=False)


def _asked(text: str) -> Option:
    """One option of the user's; `--flag value` becomes two words, `--flag=value` stays one."""
    flag, _, value = text.strip().partition(" ")
    return Option(flag, value.strip() or None, _ASKED, on_dump=flag not in _RESTORE_ONLY)


def _name(option: Option) -> str:
    return option.flag.partition("=")[0]
