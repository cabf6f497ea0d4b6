"""The container of page images: its shape on disk, written out in docs/reference/image-container.md.

A header, the blocks, an index of them, and a footer by which the index is found from the end. Whatever a file holds,
reading it ends in an index that is consistent in itself or in ContainerDamaged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from blake3 import blake3

from ckptctl.errors import CkptctlError, ExitStatus

FILE_NAME: Final = "pages.blocks"
VERSION: Final = 1
ALIGNMENT: Final = 4096
BLOCK_BYTES: Final = 2 << 20
DIGEST_BYTES: Final = 32

_HEADER_MAGIC: Final = b"CKPTPAGE"
_FOOTER_MAGIC: Final = b"CKPTEND\n"
_HEADER: Final = struct.Struct("<8sII")
_FOOTER: Final = struct.Struct("<QQ32sII8s")
_COUNT: Final = struct.Struct("<I")
_IMAGE: Final = struct.Struct("<HQ")
_BLOCK: Final = struct.Struct("<QIB3x32s")
_NAME: Final = re.compile(r"pages-[0-9]{1,20}\.img", re.ASCII)
# An index for 16 TiB of memory; what claims more is damage, and must not be loaded.
_LARGEST_INDEX_BYTES: Final = 512 << 20


class ContainerDamaged(CkptctlError):
    """A container of page images is not what it was when it was written."""

    code = "E_CONTAINER_DAMAGED"
    exit_status = ExitStatus.INTEGRITY


def damaged(what: str) -> ContainerDamaged:
    """The error for a container that holds something impossible."""
    return ContainerDamaged(
        f"The memory of the job (images/{FILE_NAME}) is damaged: {what}.",
        hint="Restore another snapshot; this one has lost data.",
    )


class Codec(IntEnum):
    """How a block is stored."""

    ZERO = 0  # not at all
    RAW = 1


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of an image, all of them BLOCK_BYTES long but the last. `digest` is that of the contents (blake3)."""

    offset_bytes: int
    stored_bytes: int
    codec: Codec
    digest: bytes


ZERO_BLOCK: Final = Block(0, 0, Codec.ZERO, bytes(DIGEST_BYTES))


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image file of CRIU in the container; its blocks are decoded one by one, since there may be millions."""

    name: str
    size_bytes: int
    _entries: memoryview

    def __len__(self) -> int:
        """How many blocks it has."""
        return len(self._entries) // _BLOCK.size

    def block(self, number: int) -> Block:
        """The block `number`, counted from 0."""
        offset, stored, codec, digest = _BLOCK.unpack_from(self._entries, number * _BLOCK.size)
        return Block(offset, stored, Codec(codec), digest)

    def length_bytes(self, number: int) -> int:
        """How long the contents of the block `number` are."""
        return min(BLOCK_BYTES, self.size_bytes - number * BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class Index:
    """What a container holds. `digest` stands for all of it: it is that of the index, which has those of the blocks."""

    images: tuple[StoredImage, ...]
    digest: bytes

    @property
    def contents_bytes(self) -> int:
        """The size of all images as CRIU wrote them."""
        return sum(image.size_bytes for image in self.images)

    def image(self, name: str) -> StoredImage | None:
        """The image of this name."""
        return next((image for image in self.images if image.name == name), None)


def is_page_image(name: str) -> bool:
    """Whether an image of CRIU goes into the container: all memory does, everything else is a small file."""
    return _NAME.fullmatch(name) is not None


def aligned(size_bytes: int) -> int:
    """The size, rounded up to what the disk takes at once."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def header() -> bytes:
    """The first ALIGNMENT bytes of every container."""
    return _HEADER.pack(_HEADER_MAGIC, VERSION, BLOCK_BYTES).ljust(ALIGNMENT, b"\0")


def tail(offset_bytes: int, images: Sequence[tuple[str, int, Sequence[Block]]]) -> tuple[bytes, bytes]:
    """Index and footer, to be written at `offset_bytes` where the blocks end, and the digest of the index.

    `images` are name, size and blocks of each.
    """
    pieces = [_COUNT.pack(len(images))]
    for name, size_bytes, blocks in images:
        encoded = name.encode("ascii")
        pieces += [_IMAGE.pack(len(encoded), size_bytes), encoded]
        pieces += [_BLOCK.pack(one.offset_bytes, one.stored_bytes, one.codec, one.digest) for one in blocks]
    index = b"".join(pieces)
    digest = blake3(index).digest()
    return index + _FOOTER.pack(offset_bytes, len(index), digest, VERSION, 0, _FOOTER_MAGIC), digest


@dataclass(frozen=True, slots=True)
class Footer:
    """Where the index lies, and what it must be."""

    index_offset_bytes: int
    index_bytes: int
    index_digest: bytes

    SIZE_BYTES = _FOOTER.size


def parse_header(data: bytes) -> None:
    """Check the beginning of a container. Raises ContainerDamaged."""
    if len(data) < _HEADER.size:
        raise damaged("it is cut off")
    magic, version, block_bytes = _HEADER.unpack_from(data)
    if magic != _HEADER_MAGIC:
        raise damaged("it does not begin like one")
    _check_version(version)
    if block_bytes != BLOCK_BYTES or data != header():
        raise damaged("its header is altered")


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
        images = tuple(_images(memoryview(data)))
    except (struct.error, UnicodeDecodeError) as error:
        raise damaged("its index is cut off") from error
    if len({image.name for image in images}) != len(images):
        raise damaged("its index names an image twice")
    _check_places(images, footer.index_offset_bytes)
    return Index(images, footer.index_digest)


def _images(data: memoryview) -> Iterator[StoredImage]:
    (count,) = _COUNT.unpack_from(data)
    position = _COUNT.size
    for _ in range(count):
        name_bytes, size_bytes = _IMAGE.unpack_from(data, position)
        position += _IMAGE.size
        name = str(data[position : position + name_bytes], "ascii")
        position += name_bytes
        entries_bytes = -(-size_bytes // BLOCK_BYTES) * _BLOCK.size
        if not is_page_image(name) or position + entries_bytes > len(data):
            raise damaged("its index is altered")
        yield StoredImage(name, size_bytes, data[position : position + entries_bytes])
        position += entries_bytes
    if position != len(data):
        raise damaged("its index is altered")


def _check_places(images: Sequence[StoredImage], end_bytes: int) -> None:
    """See that the blocks fill the file from the header to the index: nothing is hidden, nothing overlaps."""
    places = []
    for image in images:
        for number, (offset, stored, codec, _) in enumerate(_BLOCK.iter_unpack(image._entries)):
            if codec == Codec.RAW and stored == image.length_bytes(number):
                places.append((offset, stored))
            elif codec != Codec.ZERO or offset or stored:
                raise damaged(f"its index says something impossible of {image.name}")
    position = ALIGNMENT
    for offset, stored in sorted(places):
        if offset != position:
            raise damaged("its index does not tell where the blocks lie")
        position += aligned(stored)
    if position != end_bytes:
        raise damaged("its index does not tell where the blocks lie")


def _check_version(version: int) -> None:
    if version > VERSION:
        raise ContainerDamaged(
            f"The memory of the job (images/{FILE_NAME}) was written by a newer ckptctl: it has version {version}, and "
            f"this ckptctl reads versions up to {VERSION}.",
            hint="Update ckptctl.",
        )
    if version != VERSION:
        raise damaged(f"its version is {version}")
