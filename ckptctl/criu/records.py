"""What CRIU recorded of a tree: tasks, open files, pipes, sockets, terminals, as frozen values.

Everything here comes from the image files alone and is exact for the moment at which the tree was frozen.
Paths are those of the file system of the tree, decoded as by `os.fsdecode`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path


class TaskState(Enum):
    """criu/include/pstree.h and image.h, TASK_*: how a task was found."""

    ALIVE = 1
    DEAD = 2  # a zombie: it has ended, and its parent has not asked for its status yet
    STOPPED = 3
    HELPER = 4
    THREAD = 5
    UNDEFINED = 255


class RemapKind(Enum):
    """images/remap-file-path.proto: how CRIU brings back a file whose name was gone."""

    LINKED = 0  # hard-linked beside its former place as link_remap.N, on that host only
    GHOST = 1  # its contents are in the images
    PROCFS = 2  # a file of /proc of a task that has ended


class SocketState(IntEnum):
    """The states of a TCP or unix socket that CRIU writes (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


class TerminalKind(Enum):
    """images/tty.proto, TtyType."""

    UNKNOWN = 0
    PTY = 1
    CONSOLE = 2
    VT = 3
    CURRENT = 4
    EXTERNAL = 5
    SERIAL = 6


@dataclass(frozen=True, slots=True)
class FileUse:
    """A descriptor of a task: which number, on which file (an id of files.img)."""

    pid: int
    fd: int
    file_id: int


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """What a living task runs and where, as ids of regular files; `mapped_file_ids` without repetition."""

    executable_id: int
    cwd_id: int
    root_id: int
    mapped_file_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A process of the tree, with the pids of its own PID namespace.

    `exit_status` is that of wait(2), for zombies only; `memory` is None for them.
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    thread_ids: tuple[int, ...]
    state: TaskState
    exit_status: int
    comm: str
    memory: TaskMemory | None


@dataclass(frozen=True, slots=True)
class Remap:
    """How the file comes back; `target_id` is another file's id (LINKED), a ghost's number, or a pid (PROCFS)."""

    kind: RemapKind
    target_id: int


@dataclass(frozen=True, slots=True)
class RegularFile:
    """A file, folder or device that was opened by path.

    `size_bytes` is what CRIU insists on at the restore, and None where it does not (O_APPEND, devices, folders).
    `build_id` is the hexadecimal ELF build id, empty for other files.
    """

    file_id: int
    path: str
    flags: int
    position_bytes: int
    size_bytes: int | None
    mode: int | None
    build_id: str
    mount_id: int
    is_external: bool
    remap: Remap | None
    uses: tuple[FileUse, ...]

    @property
    def is_append(self) -> bool:
        """Opened with O_APPEND: it may have grown since."""
        return bool(self.flags & os.O_APPEND)


@dataclass(frozen=True, slots=True)
class PipeEnd:
    """One open end of a pipe: O_RDONLY, O_WRONLY or (rarely) O_RDWR in `flags`."""

    file_id: int
    flags: int
    uses: tuple[FileUse, ...]

    @property
    def can_read(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def can_write(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY


@dataclass(frozen=True, slots=True)
class Pipe:
    """A pipe; `pipe_id` is the inode number that /proc shows as pipe:[N] and that --inherit-fd wants."""

    pipe_id: int
    ends: tuple[PipeEnd, ...]

    @property
    def is_external(self) -> bool:
        """Only one kind of end is in the tree: the other was held outside, or by nobody any more."""
        return not (any(end.can_read for end in self.ends) and any(end.can_write for end in self.ends))

    @property
    def key(self) -> str:
        """The name by which CRIU knows it: pipe:[N]."""
        return f"pipe:[{self.pipe_id}]"


@dataclass(frozen=True, slots=True)
class Fifo:
    """A named pipe; its path is that of the regular file `regular_file_id`."""

    file_id: int
    pipe_id: int
    regular_file_id: int | None
    uses: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A unix socket; `name` is a path, or begins with a zero byte (abstract), or is empty.

    `is_external`: CRIU dumped it as one that another process outside the tree holds.
    """

    file_id: int
    inode: int
    kind: int
    state: SocketState
    peer_inode: int
    name: bytes
    is_external: bool
    uses: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A TCP or UDP socket; the addresses are text, without brackets."""

    file_id: int
    inode: int
    protocol: int
    state: SocketState
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    reuses_address: bool
    uses: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class Terminal:
    """An open terminal; `index` is N of /dev/pts/N, None for others; `session_id` 0 where it controls none."""

    file_id: int
    kind: TerminalKind
    device: int
    index: int | None
    session_id: int
    uses: tuple[FileUse, ...]


@dataclass(frozen=True, slots=True)
class GhostFile:
    """A deleted file whose contents lie in the images as ghost-file-`ghost_id`.img."""

    ghost_id: int
    mode: int
    content_bytes: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of the images folder."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The files that the tasks of the tree hold open, map, run or stand in."""

    regular: tuple[RegularFile, ...]
    pipes: tuple[Pipe, ...]
    fifos: tuple[Fifo, ...]
    unix_sockets: tuple[UnixSocket, ...]
    inet_sockets: tuple[InetSocket, ...]
    terminals: tuple[Terminal, ...]

    @property
    def external_pipes(self) -> tuple[Pipe, ...]:
        """The pipes that lead out of the tree (or whose other end nobody held any more)."""
        return tuple(pipe for pipe in self.pipes if pipe.is_external)

    def regular_file(self, file_id: int) -> RegularFile | None:
        """The regular file with that id, None where the id is of another kind of file."""
        return next((file for file in self.regular if file.file_id == file_id), None)


@dataclass(frozen=True, slots=True)
class Images:
    """Everything read from one folder of images; `run_id` names the dump. `tasks` begins with the root."""

    folder: Path
    image_version: int
    run_id: str
    tasks: tuple[Task, ...]
    open_files: OpenFiles
    ghosts: tuple[GhostFile, ...]
    image_files: tuple[ImageFile, ...]

    @property
    def root_pid(self) -> int:
        """The pid of the root in its own PID namespace."""
        return self.tasks[0].pid


@dataclass(frozen=True, slots=True)
class DumpStats:
    """stats-dump; times are microseconds (32 bit: they wrap after 71 minutes), pages have 4 KiB.

    `freezing_us` is how long it took to stop the tree, `frozen_us` how long it stood.
    """

    freezing_us: int
    frozen_us: int
    memdump_us: int
    memwrite_us: int
    irmap_resolve_us: int
    pages_scanned: int
    pages_skipped_parent: int
    pages_written: int
    pages_lazy: int
    page_pipes: int
    page_pipe_bufs: int
    shpages_scanned: int
    shpages_skipped_parent: int
    shpages_written: int


@dataclass(frozen=True, slots=True)
class RestoreStats:
    """stats-restore; times are microseconds (32 bit: they wrap after 71 minutes), pages have 4 KiB."""

    forking_us: int
    restore_us: int
    pages_compared: int
    pages_skipped_cow: int
    pages_restored: int
