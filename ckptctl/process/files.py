"""The open files of one process, by kind: /proc/PID/fd, what its links lead to, and fdinfo (proc_pid_fdinfo(5))."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ckptctl.process import proc


class FileKind(Enum):
    """What is behind a file descriptor, as far as saving it is concerned."""

    REGULAR = "regular file"
    FOLDER = "folder"
    PIPE = "pipe"
    FIFO = "named pipe"
    TERMINAL = "terminal"
    SOCKET = "socket"
    DEVICE = "device"
    MEMFD = "memfd"
    EVENTFD = "eventfd"
    EPOLL = "epoll"
    INOTIFY = "inotify"
    FANOTIFY = "fanotify"
    TIMERFD = "timerfd"
    SIGNALFD = "signalfd"
    PIDFD = "pidfd"
    IO_URING = "io_uring"
    PERF_EVENT = "perf_event"
    USERFAULTFD = "userfaultfd"
    BPF = "bpf"
    NAMESPACE = "namespace"
    ANONYMOUS = "anonymous inode"


class LockKind(Enum):
    """The kinds of file locks, as fdinfo and /proc/locks name them."""

    FLOCK = "FLOCK"
    POSIX = "POSIX"
    OPEN_FILE = "OFDLCK"
    LEASE = "LEASE"
    DELEGATION = "DELEG"


@dataclass(frozen=True, slots=True)
class FileLock:
    """A lock that is held through a descriptor; `owner_pid` is -1 for open file description locks."""

    kind: LockKind
    access: str
    owner_pid: int
    pid: int
    fd: int
    path: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file descriptor and what it stands for.

    `path` is the link's target without its mark of deletion; for what has no path it is the kernel's name, such as
    `pipe:[123]`. `deleted` says that this path is gone; with `links` above 0 the file still has another name.
    `flags` are those of open(2) and fcntl(2). `size_bytes` and `allocated_bytes` are those of stat(2).
    `device` is `major:minor` of the file system, `special` that of a device node (None else).
    `mount_id` is that of /proc/PID/mountinfo. `terminal_index` is the number of the pty that a master (/dev/ptmx)
    belongs to, `timer_interval_s` the period of a timerfd, 0 for one that fires once.
    """

    fd: int
    kind: FileKind
    path: str
    deleted: bool
    flags: int
    position: int
    mode: int
    inode: int
    device: int
    links: int
    size_bytes: int
    allocated_bytes: int
    mount_id: int
    special: tuple[int, int] | None = None
    terminal_index: int | None = None
    timer_interval_s: float | None = None

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)

    @property
    def is_character_device(self) -> bool:
        return stat.S_ISCHR(self.mode)

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)


_ANONYMOUS: Final = {
    "[eventfd]": FileKind.EVENTFD,
    "[eventpoll]": FileKind.EPOLL,
    "inotify": FileKind.INOTIFY,
    "[fanotify]": FileKind.FANOTIFY,
    "[timerfd]": FileKind.TIMERFD,
    "[signalfd]": FileKind.SIGNALFD,
    "[pidfd]": FileKind.PIDFD,
    "[io_uring]": FileKind.IO_URING,
    "[perf_event]": FileKind.PERF_EVENT,
    "[userfaultfd]": FileKind.USERFAULTFD,
}
# See Documentation/admin-guide/devices.txt of Linux: virtual consoles, serial lines, pty masters and slaves of the old
# and the new kind, the console and the controlling terminal.
_TERMINAL_MAJORS: Final = frozenset({4, 5, 204, 229, *range(128, 144)})
_PTMX: Final = (5, 2)
_LOCKS: Final = {kind.value: kind for kind in LockKind}


def read_files(pid: int) -> tuple[tuple[OpenFile, ...], tuple[FileLock, ...]]:
    """The open files of a process and the locks held through them, by descriptor. Raises Vanished."""
    files: list[OpenFile] = []
    locks: list[FileLock] = []
    for fd in proc.numbers(f"/proc/{pid}/fd"):
        try:
            file, info = _read_file(pid, fd)
        except proc.Vanished:
            continue
        if file is not None:
            files.append(file)
            locks += _locks(pid, file, info)
    return tuple(files), tuple(locks)


def kind_of(target: str, status: os.stat_result) -> FileKind:
    """The kind of a file from where its link leads and its stat."""
    by_name = _kind_by_name(target)
    if by_name is not None:
        return by_name
    mode = status.st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        terminal = stat.S_ISCHR(mode) and os.major(status.st_rdev) in _TERMINAL_MAJORS
        return FileKind.TERMINAL if terminal else FileKind.DEVICE
    by_mode = {
        stat.S_IFREG: FileKind.REGULAR,
        stat.S_IFDIR: FileKind.FOLDER,
        stat.S_IFIFO: FileKind.FIFO,
        stat.S_IFSOCK: FileKind.SOCKET,
    }
    return by_mode.get(stat.S_IFMT(mode), FileKind.ANONYMOUS)


def _kind_by_name(target: str) -> FileKind | None:
    if target.startswith("anon_inode:"):
        name = target.removeprefix("anon_inode:")
        if name.startswith(("bpf", "[bpf", "btf", "[btf")):
            return FileKind.BPF
        return _ANONYMOUS.get(name, FileKind.ANONYMOUS)
    starts = {
        "pipe:[": FileKind.PIPE,
        "socket:[": FileKind.SOCKET,
        "pidfd:[": FileKind.PIDFD,
        "/memfd:": FileKind.MEMFD,
    }
    for start, kind in starts.items():
        if target.startswith(start):
            return kind
    head, _, tail = target.partition(":[")
    return FileKind.NAMESPACE if tail and "/" not in head else None


def _read_file(pid: int, fd: int) -> tuple[OpenFile | None, str]:
    target = proc.link(f"/proc/{pid}/fd/{fd}")
    status = proc.stat(f"/proc/{pid}/fd/{fd}")
    if target is None or status is None:
        return None, ""
    info = proc.read(f"/proc/{pid}/fdinfo/{fd}")
    fields = proc.colon_fields(info)
    path, deleted = proc.without_deleted(target, status.st_ino)
    kind = kind_of(target, status)
    special = (os.major(status.st_rdev), os.minor(status.st_rdev)) if status.st_rdev else None
    file = OpenFile(
        fd=fd,
        kind=kind,
        path=path,
        # A memfd never had a path that could be gone.
        deleted=deleted and kind is not FileKind.MEMFD,
        flags=int(fields.get("flags", "0"), 8),
        position=int(fields.get("pos", "0")),
        mode=status.st_mode,
        inode=status.st_ino,
        device=status.st_dev,
        links=status.st_nlink,
        size_bytes=status.st_size,
        allocated_bytes=status.st_blocks * 512,
        mount_id=int(fields.get("mnt_id", "0")),
        special=special,
        terminal_index=int(fields["tty-index"]) if special == _PTMX and "tty-index" in fields else None,
        timer_interval_s=_seconds(fields["it_interval"]) if kind is FileKind.TIMERFD else None,
    )
    return file, info


def _seconds(pair: str) -> float:
    """`(1, 500000000)`, seconds and nanoseconds, as seconds."""
    whole, nanoseconds = pair.strip("()").split(",")
    return int(whole) + int(nanoseconds) / 1e9


def _locks(pid: int, file: OpenFile, info: str) -> list[FileLock]:
    """The `lock:` lines of fdinfo: `lock:<tab>1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF`."""
    found = []
    for line in info.splitlines():
        words = line.split()
        if not line.startswith("lock:") or len(words) < 6:
            continue
        kind = _LOCKS.get(words[2])
        if kind is not None:
            found.append(FileLock(kind, words[4], int(words[5]), pid, file.fd, file.path))
    return found
