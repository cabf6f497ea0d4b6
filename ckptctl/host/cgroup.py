"""What the memory limit of a control group leaves, for a process that is not ourselves (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
# Version 1 writes "no limit" as the largest number of pages.
_UNLIMITED_BYTES: Final = 1 << 60
# What the kernel takes back before it kills anyone.
_RECLAIMABLE: Final = frozenset(
    {"active_file", "inactive_file", "slab_reclaimable", "total_active_file", "total_inactive_file"}
)


def memory_left_bytes(groups: Iterable[str], root: Path = _ROOT) -> int | None:
    """What a process may still use; None without a limit. `groups` are the lines of its /proc/PID/cgroup.

    The strictest of its group and those above counts. Groups that are not visible from here count as unlimited.
    """
    left = [
        found for folder, limit, used in _folders(groups, root) if (found := _left(folder, limit, used)) is not None
    ]
    return min(left, default=None)


def _folders(groups: Iterable[str], root: Path) -> Iterator[tuple[Path, str, str]]:
    """The folders of the groups that limit its memory, with the names of the files for limit and use."""
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif number == "0" and not controllers:
            top, names = root, ("memory.max", "memory.current")
        else:
            continue
        folder = top / path.strip("/")
        while folder.is_relative_to(top):
            yield folder, *names
            folder = folder.parent


def _left(folder: Path, limit_name: str, used_name: str) -> int | None:
    try:
        limit, used = (folder / limit_name).read_text().strip(), int((folder / used_name).read_text())
        statistics = (folder / "memory.stat").read_text().splitlines()
    except OSError:  # the group at the top has no limit of its own
        return None
    if not limit.isdecimal() or int(limit) >= _UNLIMITED_BYTES:
        return None
    counted = dict(line.split() for line in statistics)
    # Version 1 counts the groups below in the names with `total_`, which then contain the others.
    prefix = "total_" if "total_inactive_file" in counted else ""
    reclaimable = sum(int(value) for name, value in counted.items() if name in _RECLAIMABLE and name.startswith(prefix))
    return max(0, int(limit) - used + reclaimable)
