"""The memory of one process: sizes from /proc/PID/status, and the mappings that matter for saving it."""

from __future__ import annotations

import os
from collections.abc import Mapping as Fields
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.process import proc


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes in bytes, from /proc/PID/status (proc_pid_status(5)): cheap, where smaps walks every page table.

    `anonymous_bytes` is private memory; pages shared with a parent since a fork count in each process.
    `shared_bytes` is resident shared memory: shm, memfd, tmpfs files.
    """

    resident_bytes: int = 0
    anonymous_bytes: int = 0
    file_bytes: int = 0
    shared_bytes: int = 0
    swapped_bytes: int = 0
    locked_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping that is shared, deleted, a device, or not of a plain file.

    `links` is the number of names the file still has, `allocated_bytes` what the file occupies: both None where the
    user may not look (proc_pid_map_files(5)).
    """

    start: int
    end: int
    shared: bool
    path: str
    deleted: bool
    device: int
    inode: int
    special: tuple[int, int] | None = None
    links: int | None = None
    size_bytes: int | None = None
    allocated_bytes: int | None = None

    @property
    def length_bytes(self) -> int:
        return self.end - self.start


_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_FIELDS: Final = {
    "resident_bytes": "VmRSS",
    "anonymous_bytes": "RssAnon",
    "file_bytes": "RssFile",
    "shared_bytes": "RssShmem",
    "swapped_bytes": "VmSwap",
    "locked_bytes": "VmLck",
}


def read_memory(status: Fields[str, str]) -> Memory:
    """The sizes in the fields of /proc/PID/status; a zombie has none."""
    return Memory(**{name: int(status.get(field, "0").split()[0]) * 1024 for name, field in _FIELDS.items()})


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, shared memory included, at the least cost (proc(5)); 0 where it has ended."""
    try:
        return int(proc.read(f"/proc/{pid}/statm").split()[1]) * _PAGE_BYTES
    except (proc.Vanished, IndexError):
        return 0


def forget_peak() -> None:
    """Let `peak_bytes` count from here on (proc_pid_clear_refs(5))."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int | None:
    """The most resident memory that this process has had at a time; None where the kernel does not tell."""
    peak = proc.colon_fields(proc.read("/proc/self/status")).get("VmHWM")
    return None if peak is None else int(peak.split()[0]) * 1024


def read_mappings(pid: int) -> tuple[Mapping, ...]:
    """The mappings of a process that need more than their memory to be saved. Raises Vanished."""
    lines = proc.read(f"/proc/{pid}/maps").splitlines()
    return tuple(_mapping(pid, line.split(maxsplit=5)) for line in lines if _matters(line))


def _matters(line: str) -> bool:
    """Quick, since torch alone brings a thousand lines: of private mappings only the odd ones are wanted."""
    permissions = line[line.index(" ") + 1 :][:4]
    if permissions[3] == "s":
        return True
    return line.endswith(proc.DELETED) or "anon_inode:" in line or " /dev/" in line or "[uprobes]" in line


def _mapping(pid: int, words: list[str]) -> Mapping:
    start, end = (int(text, 16) for text in words[0].split("-"))
    major, minor = (int(text, 16) for text in words[3].split(":"))
    path, deleted = proc.without_deleted(words[5].strip() if len(words) > 5 else "", int(words[4]))
    status = proc.stat(f"/proc/{pid}/map_files/{start:x}-{end:x}") if words[4] != "0" else None
    special = (os.major(status.st_rdev), os.minor(status.st_rdev)) if status and status.st_rdev else None
    return Mapping(
        start,
        end,
        words[1][3] == "s",
        path,
        deleted,
        os.makedev(major, minor),
        int(words[4]),
        special,
        status.st_nlink if status else None,
        status.st_size if status else None,
        status.st_blocks * 512 if status else None,
    )
