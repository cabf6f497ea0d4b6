"""The container: what goes in comes out, and whatever is altered is found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptctl.images import container, reader, unpack
from ckptctl.images.blockfile import allocate, is_zero
from ckptctl.images.container import ALIGNMENT, FILE_NAME, GROUP_BYTES, ContainerDamaged, Footer
from ckptctl.images.reader import Reader
from ckptctl.images.writer import Sealed
from support.image_stream import write_container

MakeContainer = Callable[[Mapping[str, bytes]], tuple[Path, Sealed]]
IMAGES = {
    "pages-1.img": os.urandom(GROUP_BYTES) + bytes(GROUP_BYTES) + os.urandom(3 * ALIGNMENT),
    "pages-2.img": b"",
    "pages-3.img": os.urandom(ALIGNMENT + 5),
}


def contents_of(path: Path) -> dict[str, bytes]:
    with Reader(path) as found:
        return {image.name: b"".join(map(bytes, found.pieces(image))) for image in found.index.images}


piece = st.one_of(
    st.integers(0, 3 * ALIGNMENT).map(bytes),
    st.binary(max_size=64),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(), st.integers(0, 2 * ALIGNMENT)),
    st.sampled_from([bytes(GROUP_BYTES), b"x" * GROUP_BYTES]),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 10**20 - 1).map(lambda n: f"pages-{n}.img"), st.lists(piece, max_size=4)))
def test_what_goes_in_comes_out(images: dict[str, list[bytes]]) -> None:
    joined = {name: b"".join(pieces) for name, pieces in images.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE_NAME)
        sealed = write_container(path, joined)
        assert contents_of(path) == joined
        assert sealed.size_bytes == path.stat().st_size
        assert sealed.contents_bytes == sum(map(len, joined.values()))
        reader.verify(path, sealed.digest, lambda _: None)


def test_blocks_of_zeros_take_no_room(make_container: MakeContainer) -> None:
    path, sealed = make_container({"pages-1.img": bytes(9 * GROUP_BYTES) + b"x"})
    assert sealed.zero_bytes == 9 * GROUP_BYTES
    assert path.stat().st_size < 4 * ALIGNMENT
    assert contents_of(path) == {"pages-1.img": bytes(9 * GROUP_BYTES) + b"x"}


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 5000])
def test_a_single_bit_is_not_zero(at: int) -> None:
    buffer = allocate(2 * ALIGNMENT)
    assert is_zero(buffer)
    buffer[at] = 1
    assert is_zero(buffer[:at] if at else buffer[1:])
    assert not is_zero(buffer)


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def near(data: bytes, chance: random.Random, start: int, end: int) -> bytes:
    at = chance.randrange(start, end)
    return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def cut_out(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 2 * ALIGNMENT) :]


def swap(data: bytes, chance: random.Random) -> bytes:
    one, other = (chance.randrange(len(data) // ALIGNMENT) * ALIGNMENT for _ in range(2))
    copy = bytearray(data)
    copy[one : one + ALIGNMENT], copy[other : other + ALIGNMENT] = (
        data[other : other + ALIGNMENT], data[one : one + ALIGNMENT],
    )  # fmt: skip
    return bytes(copy)


KINDS: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit": flip,
    "in the header": lambda data, chance: near(data, chance, 0, ALIGNMENT),
    "in the footer": lambda data, chance: near(data, chance, len(data) - Footer.SIZE_BYTES, len(data)),
    "in the index": lambda data, chance: near(data, chance, len(data) - 300, len(data) - Footer.SIZE_BYTES),
    "cut off": cut,
    "cut out": cut_out,
    "grown": lambda data, chance: data + chance.randbytes(chance.randrange(1, 9000)),
    "swapped": swap,
    "other": lambda data, chance: chance.randbytes(chance.randrange(20000)),
    "zeros": lambda data, chance: data[:ALIGNMENT] + bytes(len(data) - 2 * ALIGNMENT) + data[-ALIGNMENT:],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_alteration_is_found(kind: str, make_container: MakeContainer) -> None:
    """25 of each kind; none of them ends the reader with anything but ContainerDamaged."""
    path, sealed = make_container(IMAGES)
    whole = path.read_bytes()
    chance = random.Random(kind)
    for _ in range(25):
        altered = KINDS[kind](whole, chance)
        if altered == whole:
            continue
        path.write_bytes(altered)
        with pytest.raises(ContainerDamaged):
            reader.verify(path, sealed.digest, lambda _: None)
    path.write_bytes(whole)
    reader.verify(path, sealed.digest, lambda _: None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_an_index_of_any_bytes_is_refused_or_consistent(data: bytes, end: int, file_bytes: int) -> None:
    """Also one whose digest is right: who wrote it may be hostile."""
    from blake3 import blake3

    try:
        index = container.parse_index(data, Footer(end, len(data), blake3(data).digest()))
    except ContainerDamaged:
        return
    assert all(container.is_page_image(image.name) for image in index.images)


def test_another_container_is_refused(make_container: MakeContainer) -> None:
    _, mine = make_container(IMAGES)
    path, _ = make_container({"pages-1.img": b"another job"})
    with pytest.raises(ContainerDamaged, match="another one"):
        reader.verify(path, mine.digest, lambda _: None)


def test_a_newer_version_is_refused_in_words(make_container: MakeContainer) -> None:
    path, sealed = make_container(IMAGES)
    data = bytearray(path.read_bytes())
    data[-16:-12] = (7).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ContainerDamaged, match="newer ckptctl: it has version 7"):
        reader.verify(path, sealed.digest, lambda _: None)


def test_it_is_unpacked_without_ckptctl(make_container: MakeContainer, tmp_path: Path) -> None:
    path, _ = make_container(IMAGES)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    program = Path(unpack.__file__)
    subprocess.run([sys.executable, "-I", "-S", "-", path, folder], input=program.read_bytes(), check=True)
    assert {image.name: image.read_bytes() for image in folder.iterdir()} == IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    assert subprocess.run([sys.executable, program, path, tmp_path], capture_output=True).returncode == 1
