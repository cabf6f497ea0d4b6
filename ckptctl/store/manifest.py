"""What a snapshot says of itself: everything that the restore needs and a person wants to know.

These records are the shape on disk, version 1 (see manifest_json). Fields may be added, with a default, without a new
version; a field that changes its meaning, its name or its type needs one, and a migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from ckptctl.store.codec import Count, Descriptor, Pid, Range, Size, UserId
from ckptctl.store.image_records import DIGEST_ALGORITHM as DIGEST_ALGORITHM
from ckptctl.store.image_records import ContainerRecord as ContainerRecord
from ckptctl.store.image_records import ImageRecord as ImageRecord
from ckptctl.store.image_records import Images as Images
from ckptctl.store.image_records import PackRecord as PackRecord
from ckptctl.store.image_records import is_image_name as is_image_name
from ckptctl.store.names import is_run_name, is_snapshot_id


@dataclass(frozen=True, slots=True)
class HostRecord:
    """The machine on which the snapshot was taken."""

    hostname: Annotated[str, "name of the machine"]
    boot_id: Annotated[str, "the kernel's random id of this boot (/proc/sys/kernel/random/boot_id)"]
    kernel: Annotated[str, "release of the kernel (uname -r)"]
    arch: Annotated[str, "architecture (uname -m)"]
    cpu_model: Annotated[str, "name of the processor"]
    cpu_flags: Annotated[tuple[str, ...], "features of the processor, as in /proc/cpuinfo"]
    memory_bytes: Annotated[Size, "memory of the machine"]
    page_size_bytes: Annotated[Size, "size of a page of memory"]


@dataclass(frozen=True, slots=True)
class CriuOption:
    """One option that criu was given, and why."""

    flag: Annotated[str, "the option, with its dashes"]
    value: Annotated[str | None, "its value, where it takes one"]
    reason: Annotated[str, "why this tree needs it"]
    on_dump: Annotated[bool, "given to `criu dump`"] = True
    on_restore: Annotated[bool, "to be given to `criu restore`"] = True

    def __post_init__(self) -> None:
        # Otherwise a forged manifest could turn a value into an option.
        if not self.flag.startswith("-"):
            raise ValueError("the flag of an option begins with a dash")

    @property
    def words(self) -> tuple[str, ...]:
        """The option as words of a command line."""
        return (self.flag,) if self.value is None else (self.flag, self.value)


@dataclass(frozen=True, slots=True)
class CriuRecord:
    """The CRIU that wrote the images."""

    path: Annotated[str, "the program"]
    version: Annotated[str, "its version"]
    options: Annotated[tuple[CriuOption, ...], "the options that were chosen for this tree"] = ()


class ProcessState(StrEnum):
    """What a process was doing before the dump touched it."""

    RUNNING = "running"  # or asleep
    STOPPED = "stopped"  # by a signal: to be left stopped after a restore too
    ZOMBIE = "zombie"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process of the tree."""

    pid: Annotated[Pid, "its id in the PID namespace in which it was dumped; a restore gives it the same"]
    host_pid: Annotated[Pid, "its id on the host at the time of the dump"]
    parent_pid: Annotated[Count, "id of its parent in the same namespace as `pid`; 0 where that is outside of it"]
    start_ticks: Annotated[Count, "when it started, in clock ticks after boot (/proc/PID/stat, field 22)"]
    threads: Annotated[tuple[Pid, ...], "ids of all its threads, in the same namespace as `pid`"]
    comm: Annotated[str, "short name (/proc/PID/comm)"]
    cmdline: Annotated[tuple[str, ...], "command line"]
    exe: Annotated[str | None, "the program file; null where there is none (a zombie)"]
    cwd: Annotated[str | None, "working folder; null for a zombie"]
    uid: Annotated[UserId, "real user id"]
    gid: Annotated[UserId, "real group id"]
    sid: Annotated[Count, "id of its session; 0 where the leader is outside the PID namespace"]
    pgid: Annotated[Count, "id of its process group; 0 where the leader is outside the PID namespace"]
    state: Annotated[ProcessState, "what it was doing"]
    rss_bytes: Annotated[Size, "resident memory"]
    permitted_capabilities: Annotated[
        Count | None, "the capabilities that it may use, as a mask (CapPrm of /proc/PID/status); null: not known"
    ] = None
    bounding_capabilities: Annotated[
        Count | None, "those that it can ever get, as a mask (CapBnd of /proc/PID/status); null: not known"
    ] = None
    environment_names: Annotated[tuple[str, ...], "names of its environment variables"] = ()
    environment: Annotated[Mapping[str, str] | None, "the variables with their values, only where that was asked"] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Tree:
    """The processes that were dumped together."""

    root_pid: Annotated[Pid, "the process whose descendants the others are"]
    processes: Annotated[tuple[ProcessRecord, ...], "every process, parents before their children"]
    own_pid_namespace: Annotated[bool, "whether the tree lived in a PID namespace below that of ckptctl"] = False
    cgroup: Annotated[str | None, "cgroup (v2) of the root process"] = None

    def __post_init__(self) -> None:
        pids = [process.pid for process in self.processes]
        if len(set(pids)) != len(pids):
            raise ValueError("two processes have the same pid")
        if self.root_pid not in pids:
            raise ValueError("the root process is not among the processes")

    @property
    def root(self) -> ProcessRecord:
        return next(process for process in self.processes if process.pid == self.root_pid)


@dataclass(frozen=True, slots=True)
class FileUser:
    """A process that has a file open."""

    pid: Annotated[Pid, "the process"]
    fd: Annotated[Descriptor, "its file descriptor"]


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that the frozen tree had open, as CRIU recorded it."""

    path: Annotated[str, "where it was"]
    users: Annotated[tuple[FileUser, ...], "who has it open; empty for a mapped file without a descriptor"]
    flags: Annotated[Count, "flags of open(2), as a number"]
    position_bytes: Annotated[Size, "where the next read or write happens"]
    size_bytes: Annotated[Size | None, "its size; null where it is no regular file"]
    mode: Annotated[Count | None, "type and permissions (st_mode), as a number; null where CRIU did not say"]
    append: Annotated[bool, "opened for appending (O_APPEND)"]
    deleted: Annotated[bool, "had no name any more; its contents are among the images"]


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A library or another file mapped into memory; it must be the same at the restore."""

    path: Annotated[str, "where it was"]
    size_bytes: Annotated[Size, "its size"]
    build_id: Annotated[str | None, "the GNU build id in hexadecimal, where it has one"] = None
    mode: Annotated[Count | None, "type and permissions (st_mode), as a number; null: not known"] = None


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that lives in memory (/dev/shm), whose contents are part of the snapshot."""

    path: Annotated[str, "where it was"]
    name: Annotated[str, "the file below `images` that holds its contents"]
    mode: Annotated[Count, "its permissions"]
    uid: Annotated[UserId, "its owner"]
    gid: Annotated[UserId, "its group"]

    def __post_init__(self) -> None:
        if not is_image_name(self.name):
            raise ValueError(f"{self.name[:80]!a} is not a name of a file below the folder of images")
        if not self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"{self.path[:80]!a} is not an absolute path")


class EndKind(StrEnum):
    """What kind of thing leads out of the tree."""

    PIPE = "pipe"
    FIFO = "fifo"
    TTY = "tty"
    UNIX = "unix"
    TCP = "tcp"
    UDP = "udp"


class Direction(StrEnum):
    """Which way data goes through an end, seen from the tree."""

    READ = "read"
    WRITE = "write"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class End:
    """A descriptor whose other side is outside the tree."""

    kind: Annotated[EndKind, "what it is"]
    key: Annotated[str, "CRIU's name for it: `pipe:[123]`, `tty[8800:3]`"]
    pid: Annotated[Pid, "the process that has it"]
    fd: Annotated[Descriptor, "its file descriptor there"]
    direction: Annotated[Direction, "which way data went"]
    description: Annotated[str, "who was on the other side, for people"] = ""


class Transport(StrEnum):
    """A transport protocol of the Internet."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """A port that the restore needs again."""

    transport: Annotated[Transport, "protocol"]
    address: Annotated[str, "address to which it is bound"]
    port: Annotated[int, Range(0, 65535), "number"]
    pid: Annotated[Pid, "the process that listens"]


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory the tree had, and how much its images take."""

    resident_bytes: Annotated[Size, "resident, shared pages counted once for each process"]
    shared_bytes: Annotated[Size, "of that, shared between processes or with files"]
    image_bytes: Annotated[Size, "what the snapshot stores of that itself: the sum of the sizes of its image files"]
    buffer_bytes: Annotated[Size, "memory that ckptctl took for what CRIU gave faster than the disk took it"] = 0
    peak_bytes: Annotated[
        Size | None, "the most memory that ckptctl held until the manifest was written; null: not known"
    ] = None


@dataclass(frozen=True, slots=True)
class Phase:
    """How long one step of the dump took."""

    name: Annotated[str, "the step"]
    seconds: Annotated[float, "its duration"]


@dataclass(frozen=True, slots=True)
class CriuTimes:
    """CRIU's own statistics of the dump (stats-dump). The times wrap around after 71 minutes."""

    freezing_us: Annotated[Count, "until every process stood still"]
    frozen_us: Annotated[Count, "how long they stood still: the pause of the job where it went on"]
    memdump_us: Annotated[Count, "of that, collecting memory"]
    memwrite_us: Annotated[Count, "writing memory"]
    pages_written: Annotated[Count, "pages of 4 KiB, without those of shared memory"]


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the dump took."""

    phases: Annotated[tuple[Phase, ...], "the steps in order; what comes after the manifest was written is not there"]
    criu: Annotated[CriuTimes | None, "CRIU's own numbers, where it gave them"] = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training was."""

    step: Annotated[Count | None, "training step"] = None
    epoch: Annotated[Count | None, "training epoch"] = None
    metrics: Annotated[Mapping[str, float], 'metrics by name; "NaN", "Infinity" and "-Infinity" as strings'] = field(
        default_factory=dict
    )
    source: Annotated[str | None, "where these came from; null where nothing is known"] = None
    metric_steps: Annotated[
        Mapping[str, Count], "the step at which each metric was measured; those without one are not here"
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GpuRecord:
    """A GPU of the machine at the dump."""

    index: Annotated[Count, "its number in nvidia-smi"]
    uuid: Annotated[str, "its UUID, as NVIDIA writes it"]
    model: Annotated[str, "its name"]
    total_bytes: Annotated[Size, "its memory"]


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Device memory of one process on one GPU."""

    pid: Annotated[Pid, "the process, with its id in the images"]
    uuid: Annotated[str, "the GPU"]
    size_bytes: Annotated[Size, "how much, as the driver counts it (contexts included)"]


@dataclass(frozen=True, slots=True)
class CudaTiming:
    """How long one CUDA action on one process took."""

    pid: Annotated[Pid, "the process"]
    action: Annotated[str, "lock, checkpoint, restore or unlock"]
    began_s: Annotated[float, "when it began, in seconds after the first of these actions"]
    seconds: Annotated[float, "its duration"]
    bytes_per_second: Annotated[float | None, "device memory moved in a second; null for a lock"] = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the job had on GPUs, and how that was saved: it lies in the memory of its processes."""

    driver: Annotated[str | None, "version of NVIDIA's driver; null where it could not be asked"]
    method: Annotated[str, "what drove the checkpoint"]
    gpus: Annotated[tuple[GpuRecord, ...], "every GPU that the machine showed"]
    pids: Annotated[tuple[Pid, ...], "the processes with CUDA state, with their ids in the images"]
    memory: Annotated[tuple[DeviceMemory, ...], "device memory by process and GPU, as far as the driver told"] = ()
    workers: Annotated[Count, "how many processes are moved at a time"] = 1
    timings: Annotated[tuple[CudaTiming, ...], "the CUDA actions of the dump, in the order in which they began"] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of it."""

    id: Annotated[str, "the snapshot's id, also the name of its folder in the store"]
    run: Annotated[str, "the series of snapshots of one job to which it belongs"]
    created: Annotated[datetime, "when the dump began"]
    ckptctl_version: Annotated[str, "the ckptctl that took it"]
    ended: Annotated[bool, "whether the job was to be ended by the dump; false: it went on"]
    host: Annotated[HostRecord, "the machine"]
    criu: Annotated[CriuRecord, "the CRIU that wrote the images"]
    tree: Annotated[Tree, "the processes"]
    memory: Annotated[Memory, "memory of the tree"]
    timings: Annotated[Timings, "how long it took"]
    images: Annotated[Images, "the files that CRIU wrote"]
    open_files: Annotated[tuple[OpenFile, ...], "files that were open"] = ()
    mapped_files: Annotated[tuple[MappedFile, ...], "libraries and other mapped files"] = ()
    kept_files: Annotated[tuple[KeptFile, ...], "files in memory, whose contents are among the images"] = ()
    ends: Annotated[tuple[End, ...], "pipes, terminals and sockets that led out of the tree"] = ()
    ports: Annotated[tuple[ListeningPort, ...], "ports that the tree listened on"] = ()
    gpu: Annotated[Gpu | None, "what the job had on GPUs; null where it used none"] = None
    progress: Annotated[Progress, "how far the training was"] = field(default_factory=Progress)
    tags: Annotated[tuple[str, ...], "tags given by the user"] = ()
    note: Annotated[str | None, "a note by the user"] = None

    def __post_init__(self) -> None:
        # Both become folder names, and folders are removed by them.
        if not is_snapshot_id(self.id):
            raise ValueError(f"{self.id[:80]!a} is not an id of a snapshot")
        if not is_run_name(self.run):
            raise ValueError(f"{self.run[:80]!a} is not a name of a run")
        if self.created.tzinfo is None:
            raise ValueError("the time has no time zone")

    def regular_files(self) -> tuple[OpenFile, ...]:
        """The open files that had a name and a size: the ones that must be as large at the restore."""
        return tuple(file for file in self.open_files if file.size_bytes is not None and not file.deleted)
