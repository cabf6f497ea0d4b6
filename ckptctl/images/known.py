"""The blocks of an earlier snapshot, which a new one refers to instead of storing them again.

Each pack that is referred to is a hard link in the folder of the new snapshot: whatever becomes of the earlier one, the
file stays as long as there is a link to it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from ckptctl import files
from ckptctl.images import blockfile, container
from ckptctl.images.container import ALIGNMENT, FILE_NAME, MOST_GENERATIONS, Codec, Index, Pack, damaged
from ckptctl.images.reader import open_pack, read_index, require_digest


class Known:
    """What an earlier snapshot holds; see `of`. It takes some 250 bytes of memory for each block, 2.5 MiB for 1 GiB.

    `places` are entries of its index without the digest, by the digest; `packs` are those by the numbers that they have
    in it, one generation older.
    """

    @classmethod
    def of(cls, source: Path, target: Path, digest: str) -> Known:
        """Link the packs of a snapshot with the images `source` into the folder `target` and read its index.

        `digest` is that of its container. They must lie on the same file system. Raises ContainerDamaged, and
        FileTrouble: then no link is left.
        """
        known = cls(target)
        try:
            known._take(source, digest)
        except OSError as error:
            known.close()
            raise files.trouble(error, f"The blocks of {source} cannot be referred to") from error
        except BaseException:
            known.close()
            raise
        return known

    def __init__(self, folder: Path) -> None:
        """Nothing is known."""
        self.places: dict[bytes, bytes] = {}
        self.packs: dict[int, Pack] = {}
        self._folder = folder
        self._links: set[str] = set()
        self._descriptors: list[int] = []

    def __len__(self) -> int:
        """How many blocks are known."""
        return len(self.places)

    def keep_only(self, names: frozenset[str]) -> None:
        """Remove the links to all packs but these, which stay for good. Raises OSError."""
        for name in self._links - names:
            self._folder.joinpath(name).unlink()
        self._links.clear()

    def close(self) -> None:
        """Remove links of which nobody said that they are kept."""
        with suppress(OSError):  # with the folder, where the dump has failed
            self.keep_only(frozenset())
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> Known:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _take(self, source: Path, digest: str) -> None:
        own = _own_pack(source / FILE_NAME)
        own_bytes = self._link(source / FILE_NAME, own)
        index = read_index(self._folder / own.name)
        require_digest(index, digest)
        sizes = {0: own_bytes}
        self.packs[0] = own
        for number, pack in enumerate(index.packs[1:], 1):
            if pack.generation < MOST_GENERATIONS:
                self.packs[number] = Pack(pack.id, pack.generation + 1)
                sizes[number] = self._link(source / pack.name, pack)
        self._learn(index, sizes)

    def _link(self, source: Path, pack: Pack) -> int:
        """Link a pack, and let nobody punch holes into it meanwhile; its size. Raises OSError, ContainerDamaged."""
        try:
            os.link(source, self._folder / pack.name, follow_symlinks=False)
        except FileNotFoundError as error:
            raise damaged(f"images/{source.name} is missing") from error
        self._links.add(pack.name)
        descriptor = open_pack(self._folder / pack.name, pack.id)
        self._descriptors.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_size

    def _learn(self, index: Index, sizes: dict[int, int]) -> None:
        for image in index.images:
            for block in image.blocks():
                if block.codec == Codec.ZERO or block.pack not in sizes:
                    continue
                if block.offset_bytes + block.stored_bytes > sizes[block.pack]:
                    raise damaged(f"images/{index.packs[block.pack].name} is cut off")
                self.places[block.digest] = container.encode_place(block)


def _own_pack(path: Path) -> Pack:
    """The pack of a snapshot itself, as others refer to it."""
    try:
        with open(blockfile.open_regular(path), "rb", buffering=0) as file:
            return Pack(container.parse_header(file.read(ALIGNMENT)), 1)
    except FileNotFoundError as error:
        raise damaged("it is missing") from error
