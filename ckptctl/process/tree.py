"""A process tree as it stands in /proc: what preflight judges, and what the options of CRIU are chosen from.

Looking touches nothing. The tree runs on meanwhile, so each fact was true at a moment of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import proc
from ckptctl.process.files import FileKind, FileLock, LockKind, OpenFile
from ckptctl.process.identity import NoSuchProcess, ProcessId, identify
from ckptctl.process.member import Process, Stat, read_process, read_stat
from ckptctl.process.namespaces import Namespace, read_namespaces
from ckptctl.process.outside import READS, WRITES, Holder, Wanted, find_holders
from ckptctl.process.sockets import Sockets, protocol_name, read_sockets

# A tree that never holds still (a shell loop, say) is taken as it was at the last look.
_LOOKS: Final = 5
_ENDED: Final = "Look into the output of the job for why it ended."


class KernelThread(CkptctlError):
    """What was named is no process of a user but a thread of the kernel."""

    code = "E_KERNEL_THREAD"
    exit_status = ExitStatus.NO_PROCESS


@dataclass(frozen=True, slots=True)
class Pipe:
    """A pipe of the tree; `readers` and `writers` are the pids inside that hold each end.

    `outside` is the holder of an end that nobody inside has; None where the tree has both, where that end is closed
    for good, or where it is in a process that this user may not look at.
    """

    inode: int
    readers: tuple[int, ...]
    writers: tuple[int, ...]
    outside: Holder | None

    @property
    def name(self) -> str:
        """As CRIU's --inherit-fd and the links in /proc/PID/fd call it."""
        return f"pipe:[{self.inode}]"

    @property
    def leaves(self) -> bool:
        """Whether one end is not inside."""
        return not (self.readers and self.writers)


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal that the tree has open, or is controlled by.

    `index` is the number of a pty, None for other terminals; `holders` are the pids with it open, `controlled` those
    whose controlling terminal it is.
    """

    path: str
    index: int | None
    master_inside: bool
    holders: tuple[int, ...]
    controlled: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and all its descendants, the root first and parents before children.

    `peers_outside` hold the other ends of its unix sockets, `locks_outside` a flock together with it: one holder each.
    `mount_ids` are the mounts that its processes see. `own_namespaces` are those of ckptctl itself.
    `estimated_bytes` is about what CRIU will write.
    """

    processes: tuple[Process, ...]
    sockets: Sockets
    pipes: tuple[Pipe, ...]
    terminals: tuple[Terminal, ...]
    peers_outside: tuple[Holder, ...]
    locks_outside: tuple[Holder, ...]
    mount_ids: frozenset[int]
    own_namespaces: tuple[Namespace, ...]
    estimated_bytes: int

    @property
    def root(self) -> Process:
        return self.processes[0]

    @property
    def ids(self) -> tuple[ProcessId, ...]:
        return tuple(process.id for process in self.processes)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self.processes)

    @property
    def thread_ids(self) -> tuple[int, ...]:
        return tuple(thread.tid for process in self.processes for thread in process.threads)

    @property
    def locks(self) -> tuple[FileLock, ...]:
        return tuple(lock for process in self.processes for lock in process.locks)

    @property
    def living(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if not process.is_zombie)

    def process(self, pid: int) -> Process | None:
        """The process of the tree with this pid."""
        return next((process for process in self.processes if process.pid == pid), None)

    def files(self, *kinds: FileKind) -> Iterator[tuple[Process, OpenFile]]:
        """Every open file of these kinds (all without any), with its process."""
        for process in self.processes:
            for file in process.files:
                if not kinds or file.kind in kinds:
                    yield process, file

    def foreign_namespaces(self, process: Process) -> tuple[Namespace, ...]:
        """The namespaces of a process that are not ckptctl's own."""
        return tuple(item for item in process.namespaces if item not in self.own_namespaces)


def read_tree(pid: int) -> Tree:
    """Look at the tree below `pid`. Processes that end meanwhile are left out.

    Raises NoSuchProcess, also for a root that has ended and was not reaped, and KernelThread.
    """
    root = identify(pid)
    _refuse_kernel_thread(pid)
    processes = _read_processes(root)
    _refuse_ended(processes[0])
    return _tree(processes, outsiders=True)


def glance(members: Sequence[ProcessId]) -> Tree:
    """Look once at a tree whose members are known already, the root first; those that have ended are left out.

    Who holds the other ends of pipes, sockets and locks is not asked: with many trees on a large machine that takes
    seconds. Raises NoSuchProcess where the root has gone.
    """
    known: dict[ProcessId, Process] = {}
    for member in members:
        _read_into(known, member)
    if members[0] not in known:
        raise NoSuchProcess(f"Process {members[0]} has ended.", hint=_ENDED)
    return _tree(tuple(known.values()), outsiders=False)


def _tree(processes: tuple[Process, ...], *, outsiders: bool) -> Tree:
    sockets = _sockets(processes)
    pipes, wanted = _pipes(processes)
    peers = [Wanted(f"socket:[{item.peer_inode}]") for item in sockets.unix if item.peer_inside is False]
    locks = [Wanted(path, info=LockKind.FLOCK.value) for path in _flocks(processes)]
    inside = {process.pid for process in processes}
    found = find_holders([*wanted, *peers, *locks], inside, _ancestors(processes[0])) if outsiders else ()
    holders = {holder.wanted: holder for holder in found}
    return Tree(
        processes=processes,
        sockets=sockets,
        pipes=tuple(Pipe(*pipe, holders.get(end) if end else None) for pipe, end in pipes),
        terminals=_terminals(processes),
        peers_outside=tuple(holders[end] for end in peers if end in holders),
        locks_outside=tuple(holders[end] for end in locks if end in holders),
        mount_ids=_mount_ids(processes),
        own_namespaces=read_namespaces("self"),
        estimated_bytes=_estimated_bytes(processes),
    )


def _refuse_kernel_thread(pid: int) -> None:
    with contextlib.suppress(proc.Vanished):
        stat = read_stat(f"/proc/{pid}/stat")
        if stat.is_kernel_thread:
            raise KernelThread(
                f"Process {pid} ({stat.name}) is a part of the kernel.",
                hint="`ckptctl ps` shows the jobs of this machine.",
            )


def _refuse_ended(root: Process) -> None:
    if root.is_zombie and len(root.threads) <= 1:
        raise NoSuchProcess(
            f"Process {root.label} has ended; its parent {root.parent_pid} has not asked for its status.", hint=_ENDED
        )


def descendants(root: ProcessId) -> tuple[ProcessId, ...]:
    """The root and all processes below it, parents before children, as one look at /proc shows them.

    Raises NoSuchProcess where the root has gone.
    """
    below: defaultdict[int, list[Stat]] = defaultdict(list)
    stats = {}
    for pid in proc.numbers("/proc"):
        try:
            stat = read_stat(f"/proc/{pid}/stat")
        except proc.Vanished:
            continue
        stats[pid] = stat
        below[stat.parent_pid].append(stat)
    if root.pid not in stats or stats[root.pid].id != root:
        raise NoSuchProcess(f"Process {root.pid} has ended.", hint=_ENDED)
    order = [stats[root.pid]]
    for stat in order:
        order += below[stat.pid]
    return tuple(stat.id for stat in order)


def _read_processes(root: ProcessId) -> tuple[Process, ...]:
    """Read until two looks in a row show the same processes, so that none that was just born is missed."""
    known: dict[ProcessId, Process] = {}
    members = descendants(root)
    for _ in range(_LOOKS):
        for member in members:
            if member not in known:
                _read_into(known, member)
        former, members = members, descendants(root)
        if members == former:
            break
    read = tuple(known[member] for member in members if member in known)
    if not read or read[0].id != root:
        raise NoSuchProcess(f"Process {root.pid} ended while it was looked at.", hint=_ENDED)
    return read


def _read_into(known: dict[ProcessId, Process], member: ProcessId) -> None:
    try:
        process = read_process(member.pid)
    except proc.Vanished:
        return
    if process.id == member:
        known[member] = process


def _sockets(processes: Iterable[Process]) -> Sockets:
    holders: defaultdict[int, list[int]] = defaultdict(list)
    names: dict[int, str] = {}
    for process in processes:
        for file in process.files:
            if file.kind is FileKind.SOCKET:
                holders[file.inode].append(process.pid)
                if file.inode not in names:
                    names[file.inode] = protocol_name(process.pid, file.fd)
    return read_sockets({inode: tuple(dict.fromkeys(pids)) for inode, pids in holders.items()}, names)


def _flocks(processes: Iterable[Process]) -> dict[str, None]:
    locks = (lock for process in processes for lock in process.locks)
    return dict.fromkeys(lock.path for lock in locks if lock.kind is LockKind.FLOCK)


def _mount_ids(processes: Iterable[Process]) -> frozenset[int]:
    """The mounts in every mount namespace of the tree, each read through one process."""
    readers = {item: process.pid for process in processes for item in process.namespaces if item.kind == "mnt"}
    found: set[int] = set()
    for pid in readers.values():
        with contextlib.suppress(proc.Vanished):
            found.update(int(line.split()[0]) for line in proc.read(f"/proc/{pid}/mountinfo").splitlines())
    return frozenset(found)


def _pipes(
    processes: Iterable[Process],
) -> tuple[list[tuple[tuple[int, tuple[int, ...], tuple[int, ...]], Wanted | None]], list[Wanted]]:
    """Each pipe with its ends inside, and the end that is missing there; then all missing ends."""
    readers: defaultdict[int, dict[int, None]] = defaultdict(dict)
    writers: defaultdict[int, dict[int, None]] = defaultdict(dict)
    for process in processes:
        for file in process.files:
            if file.kind is FileKind.PIPE:
                for ends, held in ((readers, file.readable), (writers, file.writable)):
                    ends[file.inode].update({process.pid: None} if held else {})
    found = []
    for inode in readers:
        missing = READS if not readers[inode] else WRITES if not writers[inode] else None
        end = Wanted(f"pipe:[{inode}]", missing) if missing else None
        found.append(((inode, tuple(readers[inode]), tuple(writers[inode])), end))
    return found, [end for _, end in found if end]


def _terminals(processes: tuple[Process, ...]) -> tuple[Terminal, ...]:
    files = [(process, file) for process in processes for file in process.files if file.kind is FileKind.TERMINAL]
    masters = frozenset(file.terminal_index for _, file in files if file.terminal_index is not None)
    controlling = {process.terminal for process in processes if process.terminal}
    devices: dict[int, str] = {device: _terminal_path(device) for device in controlling}
    for _, file in files:
        if file.special and file.terminal_index is None:
            devices[os.makedev(*file.special)] = file.path
    return tuple(_terminal(device, path, processes, masters) for device, path in devices.items())


def _terminal(device: int, path: str, processes: tuple[Process, ...], masters: frozenset[int]) -> Terminal:
    index = (os.major(device) - 136) * 256 + os.minor(device) if 136 <= os.major(device) < 144 else None
    holders = [
        process.pid
        for process in processes
        if any(file.special and os.makedev(*file.special) == device for file in process.files)
    ]
    controlled = tuple(process.pid for process in processes if process.terminal == device)
    return Terminal(path, index, index in masters, tuple(holders), controlled)


def _terminal_path(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    return f"/dev/pts/{(major - 136) * 256 + minor}" if 136 <= major < 144 else f"/dev/char/{major}:{minor}"


def _ancestors(root: Process) -> Iterator[int]:
    pid = root.parent_pid
    while pid > 0:
        yield pid
        try:
            pid = read_stat(f"/proc/{pid}/stat").parent_pid
        except proc.Vanished:
            return


def _estimated_bytes(processes: tuple[Process, ...]) -> int:
    """Private memory of each process, and each shared or deleted file once: what CRIU writes, its metadata aside."""
    private = sum(item.memory.anonymous_bytes + item.memory.swapped_bytes for item in processes)
    return private + sum(_saved_files(processes).values())


def _saved_files(processes: Iterable[Process]) -> dict[tuple[int, int], int]:
    """Bytes of every memfd, shared memory segment and deleted file, by device and inode: CRIU writes each once."""
    sizes: dict[tuple[int, int], int] = {}
    for process in processes:
        for file in process.files:
            if file.kind is FileKind.MEMFD or (file.kind is FileKind.REGULAR and file.links == 0):
                sizes[file.device, file.inode] = file.allocated_bytes
        for mapping in process.mappings:
            if mapping.deleted and mapping.special is None and not mapping.links:
                size = mapping.allocated_bytes
                sizes[mapping.device, mapping.inode] = mapping.length_bytes if size is None else size
    return sizes
