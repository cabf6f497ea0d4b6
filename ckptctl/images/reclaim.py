"""What of a pack is still needed, and giving back the rest.

A pack outlives its own snapshot while others refer to blocks in it, and what nobody refers to any more is dead. In this
order nobody is harmed, and being killed anywhere neither: hold the pack; read the references of all snapshots that may
have it; then compare the number of its links with the number of those snapshots; then punch holes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.images import container
from ckptctl.images.container import ALIGNMENT, FILE_NAME, Block
from ckptctl.images.reader import open_pack, read_index, require_digest

_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE
_PUNCH_HOLE: Final = 2  # FALLOC_FL_PUNCH_HOLE
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class PackUse:
    """What a snapshot needs of a pack: bytes from start to end, in order; of its own pack all of them.

    `inode` is device and inode, the same for all links to the pack.
    """

    name: str
    id: bytes
    inode: tuple[int, int]
    ranges: tuple[tuple[int, int], ...]


class HeldPack:
    """A pack that nobody begins to refer to while it is held; see `hold`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Is made by `hold`."""
        self.path = path
        self.descriptor = descriptor

    @property
    def links(self) -> int:
        """How many links to it there are now. Raises OSError."""
        return os.fstat(self.descriptor).st_nlink

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode. Raises OSError."""
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino


def references(images: Path, digest: str) -> tuple[PackUse, ...]:
    """What the snapshot with the folder `images` needs; `digest` is that of its container.

    Raises ContainerDamaged, also where a pack is missing, and FileTrouble.
    """
    index = read_index(images / FILE_NAME)
    require_digest(index, digest)
    needed: list[set[tuple[int, int]]] = [{(0, ALIGNMENT)} for _ in index.packs]
    for image in index.images:
        for block in image.blocks():
            if block.stored_bytes and block.pack:
                needed[block.pack].add(_range(block))
    uses = []
    for number, pack in enumerate(index.packs):
        descriptor = open_pack(images / pack.name, pack.id)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        ranges = tuple(_merged(needed[number])) if number else ((0, status.st_size),)
        uses.append(PackUse(pack.name, pack.id, (status.st_dev, status.st_ino), ranges))
    return tuple(uses)


@contextmanager
def hold(pack: Path) -> Iterator[HeldPack | None]:
    """Keep everybody from referring to a pack; None where somebody holds it, or it is gone. Raises FileTrouble."""
    try:
        descriptor = os.open(pack, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise files.trouble(error, f"{pack} cannot be opened") from error
    try:
        yield HeldPack(pack, descriptor) if _lock(pack, descriptor) else None
    finally:
        os.close(descriptor)


def punch(held: HeldPack, keep: Sequence[tuple[int, int]]) -> int:
    """Give back every page of the pack that has nothing of `keep`, nor of its header; how many bytes that were.

    Nothing where the file system cannot. Raises FileTrouble.
    """
    try:
        before = os.fstat(held.descriptor)
        position = 0
        for start, end in [*_merged({(0, ALIGNMENT), *keep}), (container.aligned(before.st_size), 0)]:
            hole = container.aligned(position), start // ALIGNMENT * ALIGNMENT
            if hole[0] < hole[1] and not _punch(held.descriptor, *hole):
                return 0
            position = end
        os.fsync(held.descriptor)
        return max(0, before.st_blocks - os.fstat(held.descriptor).st_blocks) * 512
    except OSError as error:
        raise files.trouble(error, f"The space of {held.path} cannot be given back") from error


def _range(block: Block) -> tuple[int, int]:
    return block.offset_bytes, block.offset_bytes + block.stored_bytes


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same bytes in order, in as few ranges as possible."""
    first = last = 0
    for start, end in sorted(ranges):
        if start > last:
            yield first, last
            first = start
        last = max(last, end)
    yield first, last


def _lock(pack: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise files.trouble(error, f"{pack} cannot be locked") from error
    return True


def _punch(descriptor: int, start: int, end: int) -> bool:
    """Make a hole; whether that could be. Raises OSError."""
    if not _libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, end - start):
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number))
