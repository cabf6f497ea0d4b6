"""How much this process may use: open files, its control group's memory, shared memory."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The control group that we are in, and that a restored job joins.

    `delegated` says whether we may make groups below it. Memory is that of the strictest group above us, None without
    a limit.
    """

    path: str
    delegated: bool
    memory_limit_bytes: int | None
    memory_used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """`open_files_max` and `open_files_top` are our hard limit and what it may at most be raised to (fs.nr_open).

    Shared memory is /dev/shm, None where it is not mounted.
    """

    open_files: int
    open_files_max: int
    open_files_top: int
    shared_memory_bytes: int | None
    shared_memory_free_bytes: int | None
    control_group: ControlGroup


def read_limits(root: Path = Path("/")) -> Limits:
    """Read them; a limit that cannot be read counts as none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = _number(root / "proc/sys/fs/nr_open") or hard
    size, free = _shared_memory(root / "dev/shm")
    return Limits(
        open_files=soft,
        open_files_max=top if hard == resource.RLIM_INFINITY else hard,
        open_files_top=top,
        shared_memory_bytes=size,
        shared_memory_free_bytes=free,
        control_group=read_control_group(root),
    )


def read_control_group(root: Path) -> ControlGroup:
    """The group in the unified hierarchy, or that of the memory controller in the older ones (cgroups(7))."""
    path, top, limit_name, used_name = "/", root / "sys/fs/cgroup", "memory.max", "memory.current"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if "memory" in controllers.split(","):
            path, top = group, root / "sys/fs/cgroup/memory"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
            break
        if number == "0":
            path = group
    own = top / path.lstrip("/")
    limit, used = _strictest(own, top, limit_name, used_name)
    return ControlGroup(path, os.access(own / "cgroup.procs", os.W_OK), limit, used)


def _strictest(own: Path, top: Path, limit_name: str, used_name: str) -> tuple[int | None, int | None]:
    found: tuple[int | None, int | None] = (None, None)
    for folder in (own, *own.parents):
        limit = _number(folder / limit_name)
        # The older hierarchies write "no limit" as the largest number of pages.
        if limit is not None and limit < 1 << 60 and (found[0] is None or limit < found[0]):
            found = limit, _number(folder / used_name)
        if folder == top:
            break
    return found


def _shared_memory(path: Path) -> tuple[int | None, int | None]:
    try:
        if not os.path.ismount(path):
            return None, None
        info = os.statvfs(path)
    except OSError:
        return None, None
    return info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
