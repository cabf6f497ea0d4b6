"""Containers that somebody has altered, on purpose or by accident: refused in words, and in bounded memory."""

from __future__ import annotations

import dataclasses
import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from blake3 import blake3

from ckptctl.errors import CkptctlError
from ckptctl.images import container, reader
from ckptctl.images.container import ALIGNMENT, FILE_NAME, GROUP_BYTES, Block, Codec, ContainerDamaged, Footer, Pack
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.reader import Reader
from support.image_stream import write_container

CHANCE = random.Random(11)
NOISE = CHANCE.randbytes(700 << 10)
HALVES = struct.pack("<150000e", *(CHANCE.gauss(0, 0.02) for _ in range(150_000)))
TEXT = b"".join(b"%d words, " % number for number in range(50_000))[: 400 << 10]
# For contents of some MiB; what is read ahead is no memory of Python's own.
MOST_BYTES = 48 << 20
FOOTER = struct.Struct("<QQ32sII8s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A snapshot's folder with all codecs in it, that refers to a pack of an earlier one; and its digest."""
    former, folder = tmp_path_factory.mktemp("former"), tmp_path_factory.mktemp("images")
    first = write_container(former / FILE_NAME, {"pages-1.img": NOISE + HALVES}, Compression.AUTO)
    with Known.of(former, folder, first.digest) as known:
        images = {
            "pages-1.img": TEXT + NOISE + HALVES[::-1] + bytes(GROUP_BYTES) + TEXT,
            "pages-2.img": HALVES + b"end",
        }
        sealed = write_container(folder / FILE_NAME, images, Compression.AUTO, known)
    assert len(sealed.packs) == 1
    return folder, sealed.digest


def read_all(folder: Path) -> int:
    """Everything that is in it, as a restore does."""
    with Reader(folder / FILE_NAME) as found:
        return sum(len(piece) for image in found.index.images for piece in found.pieces(image))


def altered(data: bytes, chance: random.Random) -> bytes:
    """One of the things that happen to files."""
    at = chance.randrange(len(data))
    size = chance.randrange(1, 9000)
    return chance.choice(
        [
            lambda: data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :],
            lambda: data[:at],
            lambda: data[:at] + data[at + size :],
            lambda: data[:at] + bytes(size) + data[at + size :],
            lambda: data[:at] + chance.randbytes(size) + data[at + size :],
            lambda: data[:at] + data[:size] + data[at + size :],
            lambda: data + data[at : at + size],
            lambda: data[at:] + data[:at],
        ]
    )()


def test_200_alterations_are_all_found(whole: tuple[Path, str], tmp_path: Path) -> None:
    """Of the container and of the pack that it refers to, where only the blocks that are needed count."""
    folder, digest = whole
    chance = random.Random(3)
    own = (folder / FILE_NAME).read_bytes()
    ((link, foreign),) = ((one.name, one.read_bytes()) for one in folder.iterdir() if one.name != FILE_NAME)
    needed = _needed(folder)
    done = 0
    while done < 200:
        in_own = bool(done % 2)
        contents = altered(own if in_own else foreign, chance)
        if contents == own or (not in_own and all(contents[one:end] == foreign[one:end] for one, end in needed)):
            continue
        (tmp_path / FILE_NAME).write_bytes(contents if in_own else own)
        (tmp_path / link).write_bytes(foreign if in_own else contents)
        with pytest.raises(ContainerDamaged):
            reader.verify(tmp_path / FILE_NAME, digest, lambda _: None)
        done += 1
    (tmp_path / FILE_NAME).write_bytes(own)
    (tmp_path / link).write_bytes(foreign)
    reader.verify(tmp_path / FILE_NAME, digest, lambda _: None)


def _needed(folder: Path) -> list[tuple[int, int]]:
    index = reader.read_index(folder / FILE_NAME)
    blocks = [block for block in index.distinct_blocks() if block.pack]
    return [(0, ALIGNMENT), *((one.offset_bytes, one.offset_bytes + one.stored_bytes) for one in blocks)]


EXTREMES = [0, 1, 4095, 4096, GROUP_BYTES, GROUP_BYTES + 1, 2**31 - 1, 2**31, 2**32 - 1]


def test_a_hostile_index_with_the_right_digest(whole: tuple[Path, str], tmp_path: Path) -> None:
    """Whatever it says, it is refused, or what is read is as long as it says; and takes no more than a bound."""
    folder, _ = whole
    chance = random.Random(4)
    own = (folder / FILE_NAME).read_bytes()
    offset, size, *_ = FOOTER.unpack(own[-FOOTER.size :])
    index = own[offset : offset + size]
    for one in folder.iterdir():
        (tmp_path / one.name).hardlink_to(one)
    (tmp_path / FILE_NAME).unlink()
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(200):
            hostile = bytearray(index)
            for _ in range(chance.randrange(1, 3)):
                at = chance.randrange(0, size - 4)
                word = chance.choice(EXTREMES) if chance.randrange(3) else chance.randrange(2**32)
                width = chance.choice([1, 2, 4])
                hostile[at : at + width] = word.to_bytes(4, "little")[:width]
            write_index(tmp_path / FILE_NAME, own[:offset], bytes(hostile))
            try:
                found = reader.read_index(tmp_path / FILE_NAME)
                assert read_all(tmp_path) == found.contents_bytes
            except ContainerDamaged:
                refused += 1
        assert refused > 150
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def write_index(path: Path, blocks: bytes, index: bytes) -> None:
    """A container of these blocks, with a digest that fits the index."""
    path.unlink(missing_ok=True)
    footer = FOOTER.pack(len(blocks), len(index), blake3(index).digest(), 1, 0, b"CKPTEND\n")
    path.write_bytes(blocks + index + footer)


OWN = Pack(b"o" * 16, 0)
OTHER = Pack(b"x" * 16, 1)
RAW = Block(ALIGNMENT, ALIGNMENT, ALIGNMENT, Codec.RAW, 0, blake3(b"a" * ALIGNMENT).digest())
ZERO = Block(0, 0, ALIGNMENT, Codec.ZERO, 0, bytes(32))
BOMB = zstd.compress(bytes(256 << 20))


def entry(block: Block) -> bytes:
    return container.encode_place(block) + block.digest


def container_of(path: Path, entries: list[bytes], packs: tuple[Pack, ...] = (OWN,), size: int = -1) -> Path:
    """One image of these entries, over blocks of one page with `a` and a bomb."""
    stored = container.header(OWN.id) + b"a" * ALIGNMENT
    size = len(entries) * ALIGNMENT if size < 0 else size
    data, _ = container.tail(len(stored), packs, [("pages-1.img", size, b"".join(entries))])
    path.write_bytes(stored + data)
    return path


def test_what_these_are_made_of_is_sound(tmp_path: Path) -> None:
    container_of(tmp_path / FILE_NAME, [entry(RAW), entry(ZERO), entry(RAW)])
    assert read_all(tmp_path) == 3 * ALIGNMENT


IMPOSSIBLE: dict[str, Block] = {
    "too long": RAW._replace(stored_bytes=GROUP_BYTES + ALIGNMENT, length_bytes=GROUP_BYTES + ALIGNMENT),
    "longer than it is stored": RAW._replace(length_bytes=2 * ALIGNMENT),
    "in the header": RAW._replace(offset_bytes=0),
    "behind the end": RAW._replace(offset_bytes=1 << 62),
    "overlapping": RAW._replace(offset_bytes=ALIGNMENT + 512),
    "of no pack": RAW._replace(pack=1),
    "of an unknown codec": RAW._replace(codec=5),
    "zeros somewhere": ZERO._replace(offset_bytes=ALIGNMENT),
    "zeros with a digest": ZERO._replace(digest=b"d" * 32),
    "zeros that are stored": ZERO._replace(stored_bytes=1),
    "without length": ZERO._replace(length_bytes=0),
    "not smaller": RAW._replace(codec=Codec.ZSTD),
    "not stored": RAW._replace(codec=Codec.ZSTD, stored_bytes=0),
    "no frame": RAW._replace(codec=Codec.ZSTD, length_bytes=2 * ALIGNMENT),
    "no planes": RAW._replace(codec=Codec.ZSTD_OF_4, length_bytes=2 * ALIGNMENT),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_a_block_that_cannot_be(kind: str, tmp_path: Path) -> None:
    block = IMPOSSIBLE[kind]
    path = container_of(tmp_path / FILE_NAME, [entry(block)], size=block.length_bytes)
    with pytest.raises(ContainerDamaged):
        read_all(path.parent)
    with_another = container_of(tmp_path / FILE_NAME, [entry(RAW), entry(block)], size=ALIGNMENT + block.length_bytes)
    with pytest.raises(ContainerDamaged):
        read_all(with_another.parent)


@pytest.mark.parametrize(
    "packs",
    [
        (),
        (OTHER,),
        (OWN, dataclasses.replace(OTHER, generation=0)),
        (OWN, OTHER, OTHER),
        (dataclasses.replace(OWN, id=b"other" + bytes(11)),),
        (OWN, *(Pack(number.to_bytes(16), 1) for number in range(1000))),
    ],
    ids=["none", "not its own", "two of its own", "one twice", "another", "too many"],
)
def test_a_table_of_packs_that_cannot_be(packs: tuple[Pack, ...], tmp_path: Path) -> None:
    container_of(tmp_path / FILE_NAME, [entry(RAW)], packs)
    with pytest.raises(ContainerDamaged):
        read_all(tmp_path)


def test_an_image_of_another_size(tmp_path: Path) -> None:
    for size in (0, ALIGNMENT - 1, 2 * ALIGNMENT, 1 << 60):
        container_of(tmp_path / FILE_NAME, [entry(RAW)], size=size)
        with pytest.raises(ContainerDamaged):
            read_all(tmp_path)


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.ZSTD_OF_2, Codec.ZSTD_OF_4])
def test_a_bomb_never_goes_off(codec: Codec, tmp_path: Path) -> None:
    """A few KiB that would become 256 MiB."""
    block = Block(ALIGNMENT, len(BOMB), GROUP_BYTES, codec, 0, blake3(bytes(GROUP_BYTES)).digest())
    stored = container.header(OWN.id) + BOMB.ljust(container.aligned(len(BOMB)), b"\0")
    data, _ = container.tail(len(stored), [OWN], [("pages-1.img", GROUP_BYTES, entry(block))])
    (tmp_path / FILE_NAME).write_bytes(stored + data)
    tracemalloc.start()
    try:
        with pytest.raises(ContainerDamaged):
            read_all(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_an_index_that_claims_to_be_huge(tmp_path: Path) -> None:
    """A file of 8 TiB that takes no room: none of it is loaded."""
    path = tmp_path / FILE_NAME
    path.write_bytes(container.header(OWN.id))
    file_bytes = 8 << 40
    footer = FOOTER.pack(ALIGNMENT, file_bytes - ALIGNMENT - Footer.SIZE_BYTES, bytes(32), 1, 0, b"CKPTEND\n")
    with path.open("r+b") as file:
        file.seek(file_bytes - len(footer))
        file.write(footer)
    with pytest.raises(ContainerDamaged, match="footer is altered"):
        read_all(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / FILE_NAME)
    with pytest.raises(CkptctlError, match=r"cannot be read|damaged"):
        read_all(tmp_path)
