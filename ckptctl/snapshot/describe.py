"""The manifest of a dump: what CRIU recorded of the frozen tree, joined with what /proc said before.

CRIU's images are exact for the moment of the freeze, so pids, files and positions are theirs; command lines, folders
and environments come from the look at the tree before it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ckptctl import __version__
from ckptctl.criu.options import Options
from ckptctl.criu.program import Criu
from ckptctl.criu.records import DumpStats, Images, RegularFile, RemapKind, SocketState, Task, TaskState
from ckptctl.host.machine import Machine
from ckptctl.process.files import FileKind
from ckptctl.process.member import Process
from ckptctl.process.tree import Tree
from ckptctl.snapshot import ends
from ckptctl.snapshot.gpu import GpuJob, record_timings
from ckptctl.snapshot.steps import Timing
from ckptctl.store import manifest

_STATES = {TaskState.DEAD: manifest.ProcessState.ZOMBIE, TaskState.STOPPED: manifest.ProcessState.STOPPED}
_TRANSPORTS = {6: manifest.Transport.TCP, 17: manifest.Transport.UDP}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is described besides the images; `environments` by host pid, empty unless they were asked for.

    `buffer_bytes` and `peak_bytes` are memory of ckptctl itself.
    """

    id: str
    run: str
    created: datetime
    ended: bool
    tree: Tree
    machine: Machine
    criu: Criu
    options: Options
    stats: DumpStats
    timings: tuple[Timing, ...]
    progress: manifest.Progress
    tags: tuple[str, ...]
    note: str | None
    environments: Mapping[int, Mapping[str, str]]
    kept_files: tuple[manifest.KeptFile, ...]
    gpu: manifest.Gpu | None
    buffer_bytes: int
    peak_bytes: int | None


def manifest_of(subject: Subject, images: Images, digests: manifest.Images) -> manifest.Manifest:
    """Put the manifest together."""
    return manifest.Manifest(
        id=subject.id,
        run=subject.run,
        created=subject.created,
        ckptctl_version=__version__,
        ended=subject.ended,
        host=_host(subject.machine),
        criu=manifest.CriuRecord(str(subject.criu.path), subject.criu.version_text, options_of(subject.options)),
        tree=_tree(subject, images),
        memory=_memory(subject, digests),
        timings=_timings(subject),
        images=digests,
        open_files=_open_files(subject.tree, images),
        mapped_files=_mapped_files(images),
        kept_files=subject.kept_files,
        gpu=subject.gpu,
        ends=ends.found(images, subject.tree, subject.options),
        ports=_ports(images),
        progress=subject.progress,
        tags=subject.tags,
        note=subject.note,
    )


def options_of(options: Options) -> tuple[manifest.CriuOption, ...]:
    """The chosen options as the manifest keeps them."""
    return tuple(
        manifest.CriuOption(item.flag, item.value, item.reason, item.on_dump, item.on_restore)
        for item in options.chosen
    )


def gpu_of(job: GpuJob | None, tree: Tree) -> manifest.Gpu | None:
    """The GPU part of the manifest, with pids as in the images; None for a job without."""
    if job is None:
        return None
    inside = {process.pid: process.namespace_pids[-1] for process in tree.processes if process.namespace_pids}
    return manifest.Gpu(
        driver=job.facts.driver,
        method=f"{job.driver.name}: {job.reason}",
        gpus=tuple(manifest.GpuRecord(one.index, one.uuid, one.model, one.total_bytes) for one in job.facts.gpus),
        pids=tuple(inside.get(pid, pid) for pid in job.pids),
        memory=tuple(manifest.DeviceMemory(inside.get(pid, pid), uuid, size) for pid, uuid, size in job.device_bytes),
        workers=job.workers,
        timings=tuple(
            replace(one, pid=inside.get(one.pid, one.pid)) for one in record_timings(job.timings, job.bytes_by_pid)
        ),
    )


def _host(machine: Machine) -> manifest.HostRecord:
    return manifest.HostRecord(
        hostname=machine.hostname,
        boot_id=machine.boot_id,
        kernel=machine.kernel,
        arch=machine.architecture,
        cpu_model=machine.cpu.model,
        cpu_flags=machine.cpu.flags,
        memory_bytes=machine.memory_total_bytes,
        page_size_bytes=machine.page_size_bytes,
    )


def _tree(subject: Subject, images: Images) -> manifest.Tree:
    tree = subject.tree
    known = {process.namespace_pids[-1]: process for process in tree.processes if process.namespace_pids}
    return manifest.Tree(
        root_pid=images.root_pid,
        processes=tuple(_process(task, known.get(task.pid), subject.environments) for task in images.tasks),
        own_pid_namespace=len(tree.root.namespace_pids) > 1,
        cgroup=next((line.partition("::")[2] for line in tree.root.cgroups if line.startswith("0::")), None),
    )


def _process(
    task: Task, process: Process | None, environments: Mapping[int, Mapping[str, str]]
) -> manifest.ProcessRecord:
    """`process` is None for one that was born between the look and the freeze: little is known of it."""
    return manifest.ProcessRecord(
        pid=task.pid,
        host_pid=process.pid if process else task.pid,
        parent_pid=task.ppid,
        start_ticks=process.id.start_ticks if process else 0,
        # CRIU leaves rubbish in the thread list of a zombie.
        threads=(task.pid,) if task.state is TaskState.DEAD else task.thread_ids,
        comm=task.comm,
        cmdline=process.command_line if process else (),
        exe=process.executable if process else None,
        cwd=process.cwd.path if process and process.cwd else None,
        uid=process.identity.user_ids[0] if process and process.identity.user_ids else 0,
        gid=process.identity.group_ids[0] if process and process.identity.group_ids else 0,
        sid=task.sid,
        pgid=task.pgid,
        state=_STATES.get(task.state, manifest.ProcessState.RUNNING),
        rss_bytes=process.memory.resident_bytes if process else 0,
        permitted_capabilities=process.identity.permitted_capabilities if process else None,
        bounding_capabilities=process.identity.bounding_capabilities if process else None,
        environment_names=tuple(sorted(set(process.environment_names))) if process else (),
        environment=environments.get(process.pid) if process else None,
    )


def _memory(subject: Subject, digests: manifest.Images) -> manifest.Memory:
    processes = subject.tree.processes
    return manifest.Memory(
        resident_bytes=sum(process.memory.resident_bytes for process in processes),
        shared_bytes=sum(process.memory.shared_bytes for process in processes),
        image_bytes=digests.size_bytes,
        buffer_bytes=subject.buffer_bytes,
        peak_bytes=subject.peak_bytes,
    )


def _timings(subject: Subject) -> manifest.Timings:
    stats = subject.stats
    return manifest.Timings(
        phases=tuple(manifest.Phase(timing.name, timing.seconds) for timing in subject.timings),
        criu=manifest.CriuTimes(
            freezing_us=stats.freezing_us,
            frozen_us=stats.frozen_us,
            memdump_us=stats.memdump_us,
            memwrite_us=stats.memwrite_us,
            pages_written=stats.pages_written,
        ),
    )


def _open_files(tree: Tree, images: Images) -> tuple[manifest.OpenFile, ...]:
    sizes = _sizes_before(tree)
    appended = _appended_to(images)
    return tuple(
        manifest.OpenFile(
            path=file.path,
            users=tuple(manifest.FileUser(use.pid, use.fd) for use in file.uses),
            flags=file.flags,
            position_bytes=file.position_bytes,
            size_bytes=_size(file, sizes, appended),
            mode=file.mode,
            append=file.is_append,
            deleted=_is_deleted(file),
        )
        for file in images.open_files.regular
        if file.uses
    )


def _size(file: RegularFile, before: Mapping[str, int], appended: Mapping[str, int]) -> int | None:
    """The size at the freeze.

    CRIU records none for files that are appended to. Each write leaves the position at the end, so the furthest one
    is the size, unless nothing was written since the file was opened: then the size is that of the look.
    """
    if file.size_bytes is not None:
        return file.size_bytes
    if not file.is_append or file.path not in before:
        return None
    return max(before[file.path], appended.get(file.path, 0))


def _sizes_before(tree: Tree) -> dict[str, int]:
    return {
        file.path: file.size_bytes
        for _, file in tree.files(FileKind.REGULAR)
        if not file.deleted and stat.S_ISREG(file.mode)
    }


def _appended_to(images: Images) -> dict[str, int]:
    ends: dict[str, int] = {}
    for file in images.open_files.regular:
        if file.is_append:
            ends[file.path] = max(ends.get(file.path, 0), file.position_bytes)
    return ends


def _mapped_files(images: Images) -> tuple[manifest.MappedFile, ...]:
    wanted = {file_id for task in images.tasks for file_id in _mapped_ids(task)}
    files = [file for file in images.open_files.regular if file.file_id in wanted and not _is_deleted(file)]
    unique = {file.path: file for file in files if file.size_bytes is not None}
    return tuple(
        manifest.MappedFile(path, file.size_bytes or 0, file.build_id or None, file.mode)
        for path, file in sorted(unique.items())
    )


def _mapped_ids(task: Task) -> Iterable[int]:
    return (task.memory.executable_id, *task.memory.mapped_file_ids) if task.memory else ()


def _is_deleted(file: RegularFile) -> bool:
    return file.remap is not None and file.remap.kind is not RemapKind.PROCFS


def _ports(images: Images) -> tuple[manifest.ListeningPort, ...]:
    return tuple(
        manifest.ListeningPort(
            _TRANSPORTS[socket.protocol], socket.local_address, socket.local_port, socket.uses[0].pid
        )
        for socket in images.open_files.inet_sockets
        if socket.protocol in _TRANSPORTS
        and socket.uses
        and socket.local_port
        and (socket.state is SocketState.LISTEN or (socket.protocol == 17 and not socket.remote_port))
    )
