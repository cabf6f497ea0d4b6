"""Checks of what a tree has open or mapped: each kind was tried with CRIU 4.2.1, dump and restore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Check, Examination, Problem, file_problems
from ckptctl.preflight.finding import Level
from ckptctl.process.files import FileKind, OpenFile
from ckptctl.process.memory import Mapping
from ckptctl.process.tree import Tree

_GROUP: Final = "files"
# Character devices of the kernel's memory driver: null, zero, full, random, urandom, kmsg (devices.txt of Linux).
_MEMORY_MAJOR: Final = 1
_TUN: Final = (10, 200)
_NVIDIA: Final = "/dev/nvidia"
_GDRCOPY: Final = "/dev/gdrdrv"
# What a process has open by a path, where the mount that it is on matters.
_ON_MOUNTS: Final = (FileKind.REGULAR, FileKind.FOLDER, FileKind.FIFO, FileKind.DEVICE, FileKind.TERMINAL)
# A periodic timer that fires while the tree stands still is not armed again; CRIU seldom takes longer than this.
_FREEZE_S: Final = 60.0


def _holding(kind: FileKind, what: str) -> Examination:
    """A check for descriptors of a kind that CRIU cannot save, and mappings of them."""

    def examine(tree: Tree, _machine: Machine) -> Iterator[Problem]:
        files = list(tree.files(kind))
        yield from file_problems(files, Level.ERROR, lambda _file: what)
        told = {process.pid for process, _ in files}
        for process in tree.processes:
            mapped = any(f"anon_inode:[{kind.value}]" in mapping.path for mapping in process.mappings)
            if mapped and process.pid not in told:
                yield Problem(Level.ERROR, f"Process {process.label} has mapped {what}.", (("pid", str(process.pid)),))

    return examine


def _anonymous(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    yield from file_problems(tree.files(FileKind.ANONYMOUS), Level.ERROR, lambda file: file.path)


def _is_nvidia(path: str) -> bool:
    return path.startswith(_NVIDIA)


def _gpu(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    files = [(process, file) for process, file in tree.files(FileKind.DEVICE) if _is_nvidia(file.path)]
    yield from file_problems(files, Level.ERROR, lambda file: file.path)
    told = {process.pid for process, _ in files}
    for process in tree.processes:
        paths = dict.fromkeys(item.path for item in process.mappings if _is_nvidia(item.path))
        if paths and process.pid not in told:
            yield Problem(
                Level.ERROR, f"Process {process.label} has mapped {', '.join(paths)}.", (("pid", str(process.pid)),)
            )


def _devices(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    files = (
        (process, file)
        for process, file in tree.files(FileKind.DEVICE)
        if not file.path.startswith((_NVIDIA, _GDRCOPY))
        and not _savable(file)
        and not (file.special == _TUN and any(item.kind == "net" for item in tree.foreign_namespaces(process)))
    )
    yield from file_problems(files, Level.ERROR, _device_name)


def _gdrcopy(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    files = ((process, file) for process, file in tree.files(FileKind.DEVICE) if file.path.startswith(_GDRCOPY))
    yield from file_problems(files, Level.ERROR, lambda file: file.path)


def _savable(file: OpenFile) -> bool:
    return file.special is not None and file.special[0] == _MEMORY_MAJOR and file.is_character_device


def _device_name(file: OpenFile) -> str:
    numbers = "" if file.special is None else " {}:{}".format(*file.special)
    return f"the device {file.path}{numbers}"


def _device_mappings(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for process in tree.processes:
        for mapping in process.mappings:
            if mapping.special and mapping.special[0] != _MEMORY_MAJOR and not _is_nvidia(mapping.path):
                yield Problem(
                    Level.ERROR,
                    f"Process {process.label} has mapped the device {mapping.path}.",
                    (("pid", str(process.pid)), ("path", mapping.path)),
                )


def _mounts(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    """CRIU looks every open file's mount up in /proc/PID/mountinfo: secret memory and message queues have none."""
    files = (
        (process, file)
        for process, file in tree.files(*_ON_MOUNTS)
        if tree.mount_ids and file.mount_id not in tree.mount_ids
    )
    yield from file_problems(files, Level.ERROR, lambda file: f"{file.path}, which is on no mount that it sees")


def _shared_memory(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for process in tree.processes:
        own_namespace = any(item.kind == "ipc" for item in tree.foreign_namespaces(process))
        segments = [mapping for mapping in process.mappings if _is_segment(mapping)]
        if segments and not own_namespace:
            yield Problem(
                Level.ERROR,
                f"Process {process.label} has attached SysV shared memory ({len(segments)} segments).",
                (("pid", str(process.pid)), ("segments", ", ".join(item.path for item in segments))),
            )


def _is_segment(mapping: Mapping) -> bool:
    return mapping.path.startswith("/SYSV")


def _timers(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    files = (
        (process, file)
        for process, file in tree.files(FileKind.TIMERFD)
        if file.timer_interval_s is not None and 0 < file.timer_interval_s < _FREEZE_S
    )
    yield from file_problems(
        files, Level.WARNING, lambda file: f"a timerfd that fires every {file.timer_interval_s:g} s"
    )


def _locks(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for holder in tree.locks_outside:
        yield Problem(
            Level.WARNING,
            f"The lock on {holder.wanted.target} is held together with process {holder.pid} ({holder.comm}) outside the"
            " tree: a restore waits until that one has let go of it.",
            (("path", holder.wanted.target), ("pid", str(holder.pid))),
        )


_PROFILERS: Final = "Stop the profiler or tracer in the job before the dump, or start the job without it."

CHECKS: Final = (
    Check(
        "io-uring",
        _GROUP,
        "CRIU cannot save an io_uring: the dump would fail.",
        "No process holds an io_uring.",
        "Start the job so that io_uring_setup answers ENOSYS (a seccomp filter does it): libuv, and with it torchrun's"
        " agent, then uses epoll. UV_USE_IO_URING=0 and USE_LIBUV=0 do not keep the agent from it.",
        _holding(FileKind.IO_URING, "an io_uring"),
    ),
    Check(
        "perf-event",
        _GROUP,
        "CRIU cannot save performance counters: the dump would fail.",
        "No process holds a performance counter.",
        _PROFILERS,
        _holding(FileKind.PERF_EVENT, "a performance counter (perf_event)"),
    ),
    Check(
        "userfaultfd",
        _GROUP,
        "CRIU cannot save a userfaultfd: the dump would fail.",
        "No process holds a userfaultfd.",
        "Start the job without the library that handles page faults itself.",
        _holding(FileKind.USERFAULTFD, "a userfaultfd"),
    ),
    Check(
        "bpf",
        _GROUP,
        "CRIU without libbpf cannot save BPF programs and maps: the dump would fail.",
        "No process holds a BPF object.",
        _PROFILERS,
        _holding(FileKind.BPF, "a BPF object"),
    ),
    Check(
        "anonymous-inode",
        _GROUP,
        "CRIU saves few kinds of anonymous inodes: the dump would fail on any other.",
        "All anonymous inodes are of kinds that can be saved.",
        "Let the job close it before the dump, or start it without the library that opens it.",
        _anonymous,
    ),
    Check(
        "gpu-device",
        "gpu",
        "Device memory is no memory that CRIU can see: without the CUDA steps the dump would fail.",
        "No process has a GPU open.",
        "Dump with the CUDA steps (--cuda), or close the device in the job.",
        _gpu,
    ),
    Check(
        "gdrcopy",
        "gpu",
        "GDRCopy maps device memory for the processor: neither CRIU nor NVIDIA's driver lets go of it.",
        "No process uses GDRCopy.",
        "Start the job without it: unload the module gdrdrv, or take libgdrapi.so out of what UCX and NVSHMEM find"
        " (UCX_TLS=^gdr_copy, NVSHMEM_DISABLE_GDRCOPY=1).",
        _gdrcopy,
    ),
    Check(
        "device",
        _GROUP,
        "CRIU saves memory devices such as /dev/null and /dev/urandom only: the dump would fail.",
        "No process has a device open that cannot be saved.",
        "Let the job close the device before the dump.",
        _devices,
    ),
    Check(
        "device-mapping",
        _GROUP,
        "CRIU cannot save the memory of a device: the dump would fail.",
        "No process has mapped a device.",
        "Let the job unmap the device before the dump.",
        _device_mappings,
    ),
    Check(
        "mount",
        _GROUP,
        "CRIU finds open files by their mounts: the dump would fail on a file that is on none.",
        "Every open file is on a mount that the job sees.",
        "Let the job close secret memory (memfd_secret) and message queues, and open again what it had open before it"
        " moved to another mount namespace or its file system was unmounted.",
        _mounts,
    ),
    Check(
        "sysv-shared-memory",
        _GROUP,
        "CRIU saves SysV shared memory only together with its IPC namespace: the dump would fail.",
        "No process uses SysV shared memory of the host.",
        "Start the job in an IPC namespace of its own: unshare --ipc COMMAND.",
        _shared_memory,
    ),
    Check(
        "periodic-timer",
        _GROUP,
        "CRIU does not wind up a periodic timerfd again that fired unread: whoever reads it next would wait forever.",
        "No periodic timerfd can fire while the job is frozen.",
        "Have the job set its timer anew each time (one shot) instead of periodically.",
        _timers,
    ),
    Check(
        "shared-lock",
        _GROUP,
        "CRIU takes each lock again: a restore would wait for whoever holds it outside.",
        "No lock is shared with a process outside.",
        "Let that process end with the job, as `flock FILE COMMAND` does, or start the job with `flock --close`.",
        _locks,
    ),
)
