"""Is there room for a snapshot? Asked before the job stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ckptctl.files import NoSpace, free_bytes
from ckptctl.process.tree import Tree
from ckptctl.snapshot import kept
from ckptctl.units import format_size

REMEDY: Final = (
    "Remove old snapshots (ckptctl rm), keep fewer (--keep-last, --max-size), or choose another place with --store or "
    "--to."
)
# Room for what the job allocates until it stands still, and for the images that are not memory.
_FACTOR: Final = 1.05
_EXTRA_BYTES: Final = 64 << 20


def needed_bytes(tree: Tree, device_bytes: int) -> int:
    """The most that a snapshot of this tree should take: its memory, files in memory, device memory, and a margin."""
    memory_bytes = tree.estimated_bytes + (kept.bytes_to_keep(tree) or 0) + device_bytes
    return round(memory_bytes * _FACTOR) + _EXTRA_BYTES


def shortage(folder: Path, wanted_bytes: int) -> str | None:
    """What is missing, in a sentence; None where there is room. A folder that is not there yet is one of its parent."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = free_bytes(there)
    if free >= wanted_bytes:
        return None
    return (
        f"The snapshot needs about {format_size(wanted_bytes)} (with a margin); {folder} has {format_size(free)} left."
    )


def require(folder: Path, wanted_bytes: int) -> None:
    """See that there is room. Raises NoSpace."""
    missing = shortage(folder, wanted_bytes)
    if missing:
        raise NoSpace(missing, hint=REMEDY)
