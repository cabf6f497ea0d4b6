"""The namespaces of a process (namespaces(7)), each by its kind and inode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ckptctl.process import proc

KINDS: Final = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace; the same inode is the same namespace."""

    kind: str
    inode: int


def read_namespaces(pid: int | str) -> tuple[Namespace, ...]:
    """The namespaces of a process, by kind, without those that this user may not see. Raises Vanished."""
    found = []
    for kind in KINDS:
        target = proc.link(f"/proc/{pid}/ns/{kind}") if kind != "time" else _time(pid)
        if target is not None:
            found.append(Namespace(kind, int(target.partition("[")[2].rstrip("]"))))
    return tuple(found)


def _time(pid: int | str) -> str | None:
    """Time namespaces came with Linux 5.6: a missing link is no sign of a vanished process."""
    try:
        return proc.link(f"/proc/{pid}/ns/time")
    except proc.Vanished:
        return None
