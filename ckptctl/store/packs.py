"""Containers that several snapshots of a run share by hard links, and giving back what none of them needs any more.

The file system counts who has a container: none is lost, or kept for nothing, by anything that is killed here. But of a
container whose own snapshot is gone, others mostly need a part; the rest is given back here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ckptctl.files import FileTrouble, trouble
from ckptctl.store.catalog import Entry
from ckptctl.store.manifest import ContainerRecord

if TYPE_CHECKING:
    from ckptctl.images.reclaim import PackUse

Inode = tuple[int, int]


def reclaim(entries: Sequence[Entry]) -> int:
    """The bytes given back; `entries` are all snapshots of a run, which the caller has for itself.

    A container that somebody else has too, or a snapshot that cannot be read, is left as it is. Raises FileTrouble.
    """
    holders = [(entry.folder.images, container) for entry in entries if (container := _container(entry))]
    own = {_inode(images / container.name) for images, container in holders}
    orphans: dict[Inode, Path] = {}
    for images, container in holders:
        for pack in container.packs:
            inode = _inode(images / pack.name)
            if inode is not None and inode not in own:
                orphans[inode] = images / pack.name
    return sum(_reclaim(path, holders) for path in orphans.values())


def shares(entry: Entry) -> frozenset[Inode]:
    """The files with memory that a snapshot has, those of earlier ones included. Raises FileTrouble."""
    container = _container(entry)
    if container is None:
        return frozenset()
    names = (container.name, *(pack.name for pack in container.packs))
    found = (_inode(entry.folder.images / name) for name in names)
    return frozenset(inode for inode in found if inode is not None)


def _reclaim(path: Path, holders: Sequence[tuple[Path, ContainerRecord]]) -> int:
    from ckptctl.images import reclaim

    with reclaim.hold(path) as held:
        if held is None:
            return 0
        inode = held.inode
        found = [use for one in holders for use in _references(*one) if use.inode == inode]
        if len(found) != held.links:
            return 0
        return reclaim.punch(held, sorted({piece for use in found for piece in use.ranges}))


def _references(images: Path, container: ContainerRecord) -> tuple[PackUse, ...]:
    """What a snapshot needs; nothing where it cannot be read, and then its links do not count either."""
    from ckptctl.images import reclaim
    from ckptctl.images.container import ContainerDamaged

    try:
        return reclaim.references(images, container.digest)
    except (ContainerDamaged, FileTrouble):
        return ()


def _container(entry: Entry) -> ContainerRecord | None:
    return entry.manifest.images.container if entry.manifest else None


def _inode(path: Path) -> Inode | None:
    """Device and inode; None where there is nothing. Raises FileTrouble."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise trouble(error, f"{path} cannot be looked at") from error
    return status.st_dev, status.st_ino
