"""One process of a tree, looked at on its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from ckptctl.process import proc
from ckptctl.process.files import FileLock, OpenFile, read_files
from ckptctl.process.identity import ProcessId
from ckptctl.process.memory import Mapping, Memory, read_mappings, read_memory
from ckptctl.process.namespaces import Namespace, read_namespaces


class State(Enum):
    """The state letters of /proc/PID/stat."""

    RUNNING = "R"
    SLEEPING = "S"
    WAITING = "D"
    STOPPED = "T"
    TRACED = "t"
    ZOMBIE = "Z"
    DEAD = "X"
    IDLE = "I"
    PARKED = "P"


class Seccomp(IntEnum):
    """The seccomp modes of /proc/PID/status."""

    OFF = 0
    STRICT = 1
    FILTER = 2


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread; the first one has the pid of its process as `tid`."""

    tid: int
    start_ticks: int
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that a process stands in, and whether it was removed."""

    path: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Users and groups: real, effective, saved, file system; capabilities as the masks of capabilities(7)."""

    user_ids: tuple[int, ...]
    group_ids: tuple[int, ...]
    permitted_capabilities: int
    bounding_capabilities: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the tree as it was when it was read.

    `terminal` is the device number of the controlling terminal, 0 for none. `namespace_pids` are its pids from our
    PID namespace inwards. `files`, `locks` and `mappings` are empty where `hidden`: this user may not look at them.
    """

    id: ProcessId
    parent_pid: int
    group_id: int
    session_id: int
    terminal: int
    state: State
    name: str
    command_line: tuple[str, ...]
    executable: str | None
    cwd: Place | None
    root: str | None
    identity: Identity
    namespace_pids: tuple[int, ...]
    environment_names: tuple[str, ...]
    memory: Memory
    seccomp: Seccomp
    no_new_privileges: bool
    tracer_pid: int
    cgroups: tuple[str, ...]
    namespaces: tuple[Namespace, ...]
    threads: tuple[Thread, ...]
    files: tuple[OpenFile, ...]
    locks: tuple[FileLock, ...]
    mappings: tuple[Mapping, ...]
    hidden: bool

    @property
    def pid(self) -> int:
        return self.id.pid

    @property
    def is_zombie(self) -> bool:
        return self.state in _ENDED

    @property
    def leads_session(self) -> bool:
        return self.session_id == self.pid

    @property
    def leads_group(self) -> bool:
        return self.group_id == self.pid

    @property
    def label(self) -> str:
        """`1234 (python)`, for messages."""
        return f"{self.pid} ({self.name})"


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here (proc_pid_stat(5))."""

    pid: int
    name: str
    state: State
    parent_pid: int
    group_id: int
    session_id: int
    terminal: int
    start_ticks: int
    flags: int

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & _PF_KTHREAD)

    @property
    def is_ending(self) -> bool:
        """Whether it is on its way out, which takes long where it held much memory, but no zombie yet."""
        return bool(self.flags & _PF_EXITING) and self.state not in _ENDED


_ENDED: Final = frozenset({State.ZOMBIE, State.DEAD})
_DEFAULT_STATE: Final = State.SLEEPING
_PF_EXITING: Final = 0x00000004  # linux/sched.h, as the next
_PF_KTHREAD: Final = 0x00200000
_STATES: Final = {state.value: state for state in State} | {"x": State.DEAD}


def read_stat(path: str) -> Stat:
    """Read /proc/PID/stat or /proc/PID/task/TID/stat. Raises Vanished."""
    text = proc.read(path)
    if not text:
        raise proc.Vanished(path)
    opening, closing = text.index("("), text.rindex(")")
    fields = text[closing + 2 :].split()
    parent, group, session, terminal = (int(field) for field in fields[1:5])
    return Stat(
        pid=int(text[:opening]),
        name=text[opening + 1 : closing],
        state=_STATES.get(fields[0], _DEFAULT_STATE),
        parent_pid=parent,
        group_id=group,
        session_id=session,
        terminal=terminal,
        start_ticks=int(fields[19]),
        flags=int(fields[6]),
    )


def read_process(pid: int) -> Process:
    """Everything about one process. Raises Vanished."""
    base = f"/proc/{pid}"
    stat = read_stat(f"{base}/stat")
    status = proc.colon_fields(proc.read(f"{base}/status"))
    zombie = stat.state in _ENDED
    executable = None if zombie else proc.link(f"{base}/exe")
    files, locks = ((), ()) if zombie else read_files(pid)
    return Process(
        id=stat.id,
        parent_pid=stat.parent_pid,
        group_id=stat.group_id,
        session_id=stat.session_id,
        terminal=stat.terminal,
        state=stat.state,
        name=stat.name,
        command_line=() if zombie else _words(f"{base}/cmdline"),
        executable=executable,
        cwd=None if zombie else _place(f"{base}/cwd"),
        root=None if zombie else proc.link(f"{base}/root"),
        identity=_identity(status),
        namespace_pids=_integers(status.get("NSpid", "")),
        environment_names=() if zombie else tuple(read_environment(pid)),
        memory=read_memory(status),
        seccomp=Seccomp(int(status.get("Seccomp", "0"))),
        no_new_privileges=status.get("NoNewPrivs", "0") == "1",
        tracer_pid=int(status.get("TracerPid", "0")),
        cgroups=tuple(proc.read(f"{base}/cgroup").splitlines()),
        namespaces=() if zombie else read_namespaces(pid),
        threads=_threads(pid),
        files=files,
        locks=locks,
        mappings=() if zombie else read_mappings(pid),
        # CAP_DAC_READ_SEARCH lets one list descriptors, not see where they lead.
        hidden=not zombie and (executable is None or not proc.may_list(f"{base}/fd")),
    )


def read_environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with: it may hold secrets. Raises Vanished."""
    pairs = (word.partition("=") for word in _words(f"/proc/{pid}/environ"))
    return {name: value for name, _, value in pairs}


def _threads(pid: int) -> tuple[Thread, ...]:
    found = []
    for tid in proc.numbers(f"/proc/{pid}/task"):
        try:
            stat = read_stat(f"/proc/{pid}/task/{tid}/stat")
        except proc.Vanished:
            continue
        found.append(Thread(tid, stat.start_ticks, stat.name))
    return tuple(found)


def _identity(status: dict[str, str]) -> Identity:
    return Identity(
        _integers(status.get("Uid", "")),
        _integers(status.get("Gid", "")),
        int(status.get("CapPrm", "0"), 16),
        int(status.get("CapBnd", "0"), 16),
    )


def _place(path: str) -> Place | None:
    target, status = proc.link(path), proc.stat(path)
    if target is None or status is None:
        return None
    return Place(*proc.without_deleted(target, status.st_ino))


def command_words(pid: int) -> tuple[str, ...]:
    """The command line of a process; empty for a zombie. Raises Vanished."""
    return _words(f"/proc/{pid}/cmdline")


def _words(path: str) -> tuple[str, ...]:
    """The words of /proc/PID/cmdline or environ, each ended by a zero byte."""
    return tuple(word for word in proc.read(path).split("\0") if word)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())
