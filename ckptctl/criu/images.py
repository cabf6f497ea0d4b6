"""From CRIU's image files to the values of ckptctl.criu.records. Truncated or altered files raise ImageDamaged."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from ckptctl import files
from ckptctl.criu.container import damaged, member, read_entries, read_first
from ckptctl.criu.open_files import Uses, read_open_files
from ckptctl.criu.records import (
    DumpStats,
    FileUse,
    GhostFile,
    ImageFile,
    Images,
    RestoreStats,
    Task,
    TaskMemory,
    TaskState,
)

STATS_DUMP: Final = "stats-dump"
STATS_RESTORE: Final = "stats-restore"

_VMA_OF_FILE: Final = 1 << 6 | 1 << 7  # criu/include/image.h: VMA_FILE_PRIVATE, VMA_FILE_SHARED
_GHOST_PREFIX: Final = "ghost-file-"


def read_images(folder: Path) -> Images:
    """Everything that the images in `folder` say of the tree.

    Raises ImageDamaged, naming file and offset, and FileTrouble for a folder that cannot be read.
    """
    inventory = read_first(folder / "inventory.img", "inventory", "inventory_entry")
    tasks, uses = _read_tasks(folder)
    image_files = list_image_files(folder)
    return Images(
        folder=folder,
        image_version=inventory.img_version,
        run_id=inventory.dump_criu_run_id.decode("ascii", "replace"),
        tasks=tasks,
        open_files=read_open_files(folder, uses),
        ghosts=tuple(_read_ghost(folder, file) for file in image_files if file.name.startswith(_GHOST_PREFIX)),
        image_files=image_files,
    )


def list_image_files(folder: Path) -> tuple[ImageFile, ...]:
    """Every file of the folder with its size, sorted by name. Raises FileTrouble."""
    try:
        found = [(path.relative_to(folder), path.stat().st_size) for path in files.walk_regular_files(folder)]
    except OSError as error:
        raise files.trouble(error, f"The images in {folder} cannot be listed") from error
    return tuple(ImageFile(str(name), size) for name, size in found)


def read_dump_stats(folder: Path) -> DumpStats:
    """What CRIU says of a dump that succeeded; `folder` is its working folder. Raises ImageDamaged."""
    path = folder / STATS_DUMP
    entry = read_first(path, "stats", "stats_entry")
    if not entry.HasField("dump"):
        raise damaged(path, 0, "it holds no statistics of a dump")
    said = entry.dump
    return DumpStats(
        freezing_us=said.freezing_time,
        frozen_us=said.frozen_time,
        memdump_us=said.memdump_time,
        memwrite_us=said.memwrite_time,
        irmap_resolve_us=said.irmap_resolve,
        pages_scanned=said.pages_scanned,
        pages_skipped_parent=said.pages_skipped_parent,
        pages_written=said.pages_written,
        pages_lazy=said.pages_lazy,
        page_pipes=said.page_pipes,
        page_pipe_bufs=said.page_pipe_bufs,
        shpages_scanned=said.shpages_scanned,
        shpages_skipped_parent=said.shpages_skipped_parent,
        shpages_written=said.shpages_written,
    )


def read_restore_stats(folder: Path) -> RestoreStats:
    """What CRIU says of a restore that succeeded; `folder` is its working folder. Raises ImageDamaged."""
    path = folder / STATS_RESTORE
    entry = read_first(path, "stats", "stats_entry")
    if not entry.HasField("restore"):
        raise damaged(path, 0, "it holds no statistics of a restore")
    said = entry.restore
    return RestoreStats(
        forking_us=said.forking_time,
        restore_us=said.restore_time,
        pages_compared=said.pages_compared,
        pages_skipped_cow=said.pages_skipped_cow,
        pages_restored=said.pages_restored,
    )


def _read_tasks(folder: Path) -> tuple[tuple[Task, ...], Uses]:
    path = folder / "pstree.img"
    tasks: list[Task] = []
    uses: dict[int, list[FileUse]] = defaultdict(list)
    for _, entry in read_entries(path, "pstree", "pstree_entry"):
        task = _read_task(folder, entry)
        tasks.append(task)
        if task.memory is not None:
            for use in _read_descriptors(folder, task.pid):
                uses[use.file_id].append(use)
    if not tasks:
        raise damaged(path, 0, "it holds no process")
    return tuple(tasks), {file_id: tuple(found) for file_id, found in uses.items()}


def _read_task(folder: Path, entry: Any) -> Task:
    path = folder / f"core-{entry.pid}.img"
    core = read_first(path, "core", "core_entry")
    if not core.HasField("tc"):
        raise damaged(path, 0, "it describes no process")
    state = member(TaskState, core.tc.task_state, path, 0)
    return Task(
        pid=entry.pid,
        ppid=entry.ppid,
        pgid=entry.pgid,
        sid=entry.sid,
        # Of a zombie CRIU writes one thread whose number was never set.
        thread_ids=(entry.pid,) if state is TaskState.DEAD else tuple(entry.threads),
        state=state,
        exit_status=core.tc.exit_code,
        comm=os.fsdecode(core.tc.comm),
        memory=None if state is TaskState.DEAD else _read_memory(folder, entry.pid),
    )


def _read_memory(folder: Path, pid: int) -> TaskMemory:
    memory = read_first(folder / f"mm-{pid}.img", "mm", "mm_entry")
    place = read_first(folder / f"fs-{pid}.img", "fs", "fs_entry")
    mapped = (area.shmid for area in memory.vmas if area.status & _VMA_OF_FILE)
    return TaskMemory(
        executable_id=memory.exe_file_id,
        cwd_id=place.cwd_id,
        root_id=place.root_id,
        mapped_file_ids=tuple(dict.fromkeys(mapped)),
    )


def _read_descriptors(folder: Path, pid: int) -> list[FileUse]:
    # Tasks that share their descriptors (CLONE_FILES) name the same file.
    ids = read_first(folder / f"ids-{pid}.img", "ids", "task_kobj_ids_entry")
    path = folder / f"fdinfo-{ids.files_id}.img"
    return [FileUse(pid, entry.fd, entry.id) for _, entry in read_entries(path, "fdinfo", "fdinfo_entry")]


def _read_ghost(folder: Path, file: ImageFile) -> GhostFile:
    path = folder / file.name
    number = file.name.removeprefix(_GHOST_PREFIX).removesuffix(".img")
    # Unlike other numbers in names this one is hexadecimal (criu/image-desc.c, "ghost-file-%X").
    if not re.fullmatch(r"[0-9A-Fa-f]{1,8}", number):
        raise damaged(path, 0, "its name holds no number")
    entry = read_first(path, "ghost-file", "ghost_file_entry")
    # Without holes the contents follow the entry as they are; with holes, `size` says how long the file was.
    content = entry.size if entry.HasField("size") else file.size_bytes - 12 - entry.ByteSize()
    return GhostFile(int(number, 16), entry.mode, content)
