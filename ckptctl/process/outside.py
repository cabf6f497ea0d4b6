"""Who, outside a tree, holds the other end of a pipe or of a socket, or the same lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from ckptctl.process import proc

# The permission bits of a link in /proc/PID/fd tell how it is open; see proc_pid_fd(5).
READS: Final = 0o400
WRITES: Final = 0o200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: the target of a link in /proc/PID/fd, open with `access` (READS, WRITES, 0 for any).

    `info` must be a word of its fdinfo, where that is not empty.
    """

    target: str
    access: int = 0
    info: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process outside the tree that holds what was wanted."""

    wanted: Wanted
    pid: int
    comm: str


def find_holders(wanted: Collection[Wanted], inside: Collection[int], first: Iterable[int]) -> tuple[Holder, ...]:
    """One holder of each end that is wanted, where there is one that this user may look at.

    `inside` are the pids of the tree; `first` those that are looked at first, since walking every descriptor of a
    large machine takes seconds: the search ends with the last find.
    """
    left = set(wanted)
    found: list[Holder] = []
    order = dict.fromkeys([*first, *(reversed(proc.numbers("/proc")) if left else ())])
    for pid in order:
        if not left:
            break
        if pid not in inside:
            with contextlib.suppress(proc.Vanished):
                found += _held(pid, left)
    return tuple(found)


def _held(pid: int, left: set[Wanted]) -> list[Holder]:
    found = []
    for fd in proc.numbers(f"/proc/{pid}/fd"):
        with contextlib.suppress(proc.Vanished, OSError):
            path = f"/proc/{pid}/fd/{fd}"
            target = proc.link(path)
            for end in [item for item in left if item.target == target]:
                info = proc.read(f"/proc/{pid}/fdinfo/{fd}").split() if end.info else [""]
                if os.lstat(path).st_mode & end.access == end.access and end.info in info:
                    left.discard(end)
                    found.append(Holder(end, pid, proc.read(f"/proc/{pid}/comm").strip()))
    return found
