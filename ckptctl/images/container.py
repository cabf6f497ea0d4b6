"""The container of page images: its shape on disk, written out in docs/reference/image-container.md.

A header, groups of blocks, an index of them, and a footer by which the index is found from the end. Whatever a file
holds, reading it ends in an index that is consistent in itself or in ContainerDamaged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from blake3 import blake3

from ckptctl.errors import CkptctlError, ExitStatus

FILE_NAME: Final = "pages.blocks"
VERSION: Final = 1
ALIGNMENT: Final = 4096
# What is read from CRIU, cut, and written at once; no block and no gap between two of them is longer.
GROUP_BYTES: Final = 2 << 20
DIGEST_BYTES: Final = 32
PACK_ID_BYTES: Final = 16
# How many snapshots in a row may refer to a pack before its blocks are stored anew: what has become unreadable on the
# disk shall not spoil all that comes later. With 4, among the ten snapshots that a run keeps there are always two that
# have nothing in common.
MOST_GENERATIONS: Final = 4

_HEADER_MAGIC: Final = b"CKPTPAGE"
_FOOTER_MAGIC: Final = b"CKPTEND\n"
_HEADER: Final = struct.Struct("<8sII16s")
_FOOTER: Final = struct.Struct("<QQ32sII8s")
_COUNT: Final = struct.Struct("<I")
_PACK: Final = struct.Struct("<16sH2x")
_IMAGE: Final = struct.Struct("<HQI")
_PLACE: Final = struct.Struct("<QIIBxH")
_BLOCK: Final = struct.Struct("<QIIBxH32s")
_NAME: Final = re.compile(r"pages-[0-9]{1,20}\.img", re.ASCII)
_PACK_NAME: Final = re.compile(r"pages(-[0-9a-f]{32})?\.blocks", re.ASCII)
# An index for 5 TiB of memory; what claims more is damage, and must not be loaded.
_LARGEST_INDEX_BYTES: Final = 4 << 30
# Each is a file that is kept open; see MOST_GENERATIONS.
_MOST_PACKS: Final = 64


class ContainerDamaged(CkptctlError):
    """A container of page images is not what it was when it was written."""

    code = "E_CONTAINER_DAMAGED"
    exit_status = ExitStatus.INTEGRITY


def damaged(what: str) -> ContainerDamaged:
    """The error for a container that holds something impossible."""
    return ContainerDamaged(
        f"The memory of the job (images/{FILE_NAME}) is damaged: {what}.",
        hint="Restore another snapshot; this one has lost data.",
        details={"what": what},
    )


class Codec(IntEnum):
    """How a block is stored."""

    ZERO = 0  # not at all
    RAW = 1
    ZSTD = 2
    ZSTD_OF_4 = 3  # every fourth byte, then those behind them, and so on
    ZSTD_OF_2 = 4


class Block(NamedTuple):
    """A piece of an image, and where it is stored; as many as there are of them, they are made when they are needed.

    `pack` counts in Index.packs, `digest` is that of the contents (blake3).
    """

    offset_bytes: int
    stored_bytes: int
    length_bytes: int
    codec: int
    pack: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Pack:
    """A file of blocks. `generation` is how many snapshots in a row have referred to it, 0 for the one that made it."""

    id: bytes
    generation: int

    @property
    def name(self) -> str:
        """Its name in the folder of images."""
        return f"pages-{self.id.hex()}.blocks" if self.generation else FILE_NAME


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image file of CRIU in the container."""

    name: str
    size_bytes: int
    _entries: memoryview

    def __len__(self) -> int:
        """How many blocks it has."""
        return len(self._entries) // _BLOCK.size

    def blocks(self) -> Iterator[Block]:
        """Its blocks in order."""
        return map(Block._make, _BLOCK.iter_unpack(self._entries))

    def entries(self) -> Iterator[bytes]:
        """What the index says of each block, as it is written there."""
        size = _BLOCK.size
        return (bytes(self._entries[at : at + size]) for at in range(0, len(self._entries), size))


@dataclass(frozen=True, slots=True)
class Index:
    """What a container holds. `digest` stands for all of it: it is that of the index, which has those of the blocks.

    `packs` begins with the container itself; `gaps` are its bytes (start, end) that belong to no block, and are zero.
    """

    packs: tuple[Pack, ...]
    images: tuple[StoredImage, ...]
    gaps: tuple[tuple[int, int], ...]
    digest: bytes

    @property
    def contents_bytes(self) -> int:
        """The size of all images as CRIU wrote them."""
        return sum(image.size_bytes for image in self.images)

    @property
    def stored_bytes(self) -> int:
        """What of this pack and others is read for all images, a block that comes twice only once."""
        return sum(block.stored_bytes for block in self.distinct_blocks())

    def image(self, name: str) -> StoredImage | None:
        """The image of this name."""
        return next((image for image in self.images if image.name == name), None)

    def distinct_blocks(self) -> Iterator[Block]:
        """All blocks that are stored, a block that comes twice only once."""
        seen: set[bytes] = set()
        for image in self.images:
            for entry in image.entries():
                if entry not in seen:
                    seen.add(entry)
                    block = decode(entry)
                    if block.stored_bytes:
                        yield block


def is_page_image(name: str) -> bool:
    """Whether an image of CRIU goes into the container: all memory does, everything else is a small file."""
    return _NAME.fullmatch(name) is not None


def is_pack(name: str) -> bool:
    """Whether a file in a folder of images holds blocks, be it the container itself or a pack that it refers to."""
    return _PACK_NAME.fullmatch(name) is not None


def aligned(size_bytes: int) -> int:
    """The size, rounded up to what the disk takes at once."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def encode_place(block: Block) -> bytes:
    """An entry of the index without its digest, which comes behind it."""
    return _PLACE.pack(*block[:-1])


def zero_entry(length_bytes: int) -> bytes:
    """The entry of a block of zeros."""
    return _BLOCK.pack(0, 0, length_bytes, Codec.ZERO, 0, _NO_DIGEST)


def decode(entry: bytes) -> Block:
    """An entry of the index."""
    return Block._make(_BLOCK.unpack(entry))


def header(pack_id: bytes) -> bytes:
    """The first ALIGNMENT bytes of every pack."""
    return _HEADER.pack(_HEADER_MAGIC, VERSION, GROUP_BYTES, pack_id).ljust(ALIGNMENT, b"\0")


def tail(offset_bytes: int, packs: Sequence[Pack], images: Sequence[tuple[str, int, bytes]]) -> tuple[bytes, bytes]:
    """Index and footer, to be written at `offset_bytes` where the blocks end, and the digest of the index.

    `images` are name, size and all entries of each. Raises ValueError for more than a container can hold.
    """
    pieces = [_COUNT.pack(len(packs)), *(_PACK.pack(pack.id, pack.generation) for pack in packs)]
    pieces.append(_COUNT.pack(len(images)))
    for name, size_bytes, entries in images:
        encoded = name.encode("ascii")
        pieces += [_IMAGE.pack(len(encoded), size_bytes, len(entries) // _BLOCK.size), encoded, entries]
    index = b"".join(pieces)
    if len(index) > _LARGEST_INDEX_BYTES:
        raise ValueError("the index of the images is too large")
    digest = blake3(index).digest()
    return index + _FOOTER.pack(offset_bytes, len(index), digest, VERSION, 0, _FOOTER_MAGIC), digest


@dataclass(frozen=True, slots=True)
class Footer:
    """Where the index lies, and what it must be."""

    index_offset_bytes: int
    index_bytes: int
    index_digest: bytes

    SIZE_BYTES = _FOOTER.size


def parse_header(data: bytes) -> bytes:
    """Check the beginning of a pack, and give its id. Raises ContainerDamaged."""
    if len(data) < ALIGNMENT:
        raise damaged("it is cut off")
    magic, version, _, pack_id = _HEADER.unpack_from(data)
    if magic != _HEADER_MAGIC:
        raise damaged("it does not begin like one")
    _check_version(version)
    if data != header(pack_id):
        raise damaged("its header is altered")
    return bytes(pack_id)


def parse_footer(data: bytes, file_bytes: int) -> Footer:
    """The last Footer.SIZE_BYTES of a container of `file_bytes`. Raises ContainerDamaged."""
    if len(data) != _FOOTER.size or file_bytes < ALIGNMENT + _FOOTER.size:
        raise damaged("it is cut off")
    offset, size, digest, version, reserved, magic = _FOOTER.unpack(data)
    if magic != _FOOTER_MAGIC:
        raise damaged("it does not end like one, as if it were cut off")
    _check_version(version)
    if reserved or offset + size + _FOOTER.size != file_bytes or size > _LARGEST_INDEX_BYTES:
        raise damaged("its footer is altered")
    return Footer(offset, size, digest)


def parse_index(data: bytes, footer: Footer) -> Index:
    """The index; every block lies where one can be, and they fill the file without a gap. Raises ContainerDamaged."""
    if blake3(data).digest() != footer.index_digest:
        raise damaged("its index is altered")
    try:
        packs, position = _packs(data)
        images = tuple(_images(memoryview(data), position))
    except (struct.error, UnicodeDecodeError) as error:
        raise damaged("its index is cut off") from error
    if len({image.name for image in images}) != len(images):
        raise damaged("its index names an image twice")
    places: set[int] = set()
    for image in images:
        places.update(_own_places(image, len(packs)))
    return Index(packs, images, tuple(_gaps(places, footer.index_offset_bytes)), footer.index_digest)


def _packs(data: bytes) -> tuple[tuple[Pack, ...], int]:
    """The table of packs, and where it ends."""
    (count,) = _COUNT.unpack_from(data)
    if not 0 < count <= _MOST_PACKS:
        raise damaged("its index is altered")
    end = _COUNT.size + count * _PACK.size
    packs = tuple(Pack(*_PACK.unpack_from(data, at)) for at in range(_COUNT.size, end, _PACK.size))
    if packs[0].generation or not all(pack.generation for pack in packs[1:]) or len({p.id for p in packs}) != count:
        raise damaged("its index names a pack twice")
    return packs, end


def _images(data: memoryview, position: int) -> Iterator[StoredImage]:
    (count,) = _COUNT.unpack_from(data, position)
    position += _COUNT.size
    for _ in range(count):
        name_bytes, size_bytes, blocks = _IMAGE.unpack_from(data, position)
        position += _IMAGE.size
        name = str(data[position : position + name_bytes], "ascii")
        position += name_bytes
        end = position + blocks * _BLOCK.size
        if not is_page_image(name) or end > len(data):
            raise damaged("its index is altered")
        yield StoredImage(name, size_bytes, data[position:end])
        position = end
    if position != len(data):
        raise damaged("its index is altered")


def _own_places(image: StoredImage, packs: int) -> Iterator[int]:
    """Where blocks lie in this pack itself, each as one number; see that they are blocks, and the image as it says."""
    size = 0
    for offset, stored, length, codec, pack, digest in _BLOCK.iter_unpack(image._entries):
        if (
            not 0 < length <= GROUP_BYTES
            or size % ALIGNMENT  # only an image's last block ends within a page
            or pack >= packs
            or not _is_possible(stored, length, codec)
            or (codec == Codec.ZERO and (offset or pack or digest != _NO_DIGEST))
        ):
            raise damaged(f"its index says something impossible of {image.name}")
        size += length
        if codec and not pack:
            yield offset << 32 | stored
    if size != image.size_bytes:
        raise damaged(f"its index says something impossible of {image.name}")


def _is_possible(stored: int, length: int, codec: int) -> bool:
    """Whether a block can be stored in this many bytes."""
    if codec <= Codec.RAW:
        return stored == codec * length
    return codec <= Codec.ZSTD_OF_2 and 0 < stored < length


def _gaps(places: set[int], end_bytes: int) -> Iterator[tuple[int, int]]:
    """See that the blocks fill the file from the header to the index, no two on the same bytes, and nothing hidden.

    Behind a group there may be bytes up to the next page: these.
    """
    position = ALIGNMENT
    for place in sorted(places):
        offset, stored = place >> 32, place & 0xFFFFFFFF
        if offset != position:
            if offset != aligned(position):
                raise damaged("its index does not tell where the blocks lie")
            yield position, offset
        position = offset + stored
    if aligned(position) != end_bytes:
        raise damaged("its index does not tell where the blocks lie")
    if position != end_bytes:
        yield position, end_bytes


def _check_version(version: int) -> None:
    if version > VERSION:
        raise ContainerDamaged(
            f"The memory of the job (images/{FILE_NAME}) was written by a newer ckptctl: it has version {version}, and "
            f"this ckptctl reads versions up to {VERSION}.",
            hint="Update ckptctl.",
        )
    if version != VERSION:
        raise damaged(f"its version is {version}")


_NO_DIGEST: Final = bytes(DIGEST_BYTES)
