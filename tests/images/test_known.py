"""Blocks of earlier snapshots: referred to instead of stored again, and safe from whatever becomes of those."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptctl.files import FileTrouble
from ckptctl.images import reader, reclaim, unpack
from ckptctl.images.container import (
    ALIGNMENT,
    FILE_NAME,
    GROUP_BYTES,
    MOST_GENERATIONS,
    ContainerDamaged,
    is_pack,
    parse_header,
)
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.reader import Reader
from ckptctl.images.writer import Sealed
from support.image_stream import write_container
from support.tmpfs import tmpfs

MIB = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A folder of images with one page image."""

    folder: Path
    sealed: Sealed

    def contents(self) -> bytes:
        with Reader(self.folder / FILE_NAME) as found:
            (image,) = found.index.images
            return b"".join(map(bytes, found.pieces(image)))

    def verify(self) -> None:
        reader.verify(self.folder / FILE_NAME, self.sealed.digest, lambda _: None)

    def own_id(self) -> bytes:
        return parse_header((self.folder / FILE_NAME).read_bytes()[:ALIGNMENT])

    def links(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {FILE_NAME}


Save = Callable[..., Stored]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(
        name: str, contents: bytes, former: Stored | None = None, compression: Compression = Compression.OFF
    ) -> Stored:
        folder = tmp_path / name
        folder.mkdir()
        path, images = folder / FILE_NAME, {"pages-1.img": contents}
        if former is None:
            return Stored(folder, write_container(path, images, compression))
        with Known.of(former.folder, folder, former.sealed.digest) as known:
            return Stored(folder, write_container(path, images, compression, known))

    return save


def pages(seed: int, count_bytes: int) -> bytes:
    return random.Random(seed).randbytes(count_bytes)


FIRST = pages(1, 5 * MIB)
SECOND = FIRST[:MIB] + pages(2, MIB) + FIRST[2 * MIB :]
THIRD = SECOND[: 4 * MIB] + pages(3, MIB)


def test_what_is_known_is_not_stored(save: Save) -> None:
    one = save("1", FIRST)
    two = save("2", SECOND, one)
    assert two.contents() == SECOND
    two.verify()
    assert two.sealed.shared_bytes > 3.5 * MIB
    assert two.sealed.stored_bytes == 5 * MIB - two.sealed.shared_bytes
    assert two.sealed.size_bytes == (two.folder / FILE_NAME).stat().st_size < 1.6 * MIB
    assert two.links() == set(two.sealed.packs) == {f"pages-{one.own_id().hex()}.blocks"}
    assert all(map(is_pack, two.links()))


def test_nothing_new_is_nothing_stored(save: Save) -> None:
    two = save("2", FIRST, save("1", FIRST))
    assert two.sealed.shared_bytes == 5 * MIB
    assert two.sealed.stored_bytes == 0
    assert two.contents() == FIRST


def test_each_snapshot_stands_alone(save: Save) -> None:
    """Whichever others are removed, what is left is whole."""
    one = save("1", FIRST)
    two = save("2", SECOND, one)
    shutil.rmtree(one.folder)
    three = save("3", THIRD, two)
    assert len(three.sealed.packs) == 2
    shutil.rmtree(two.folder)
    assert three.contents() == THIRD
    three.verify()


def test_no_link_to_what_is_not_referred_to(save: Save, tmp_path: Path) -> None:
    one = save("1", FIRST)
    two = save("2", pages(9, MIB), one)
    assert two.links() == set() == set(two.sealed.packs)
    three = save("3", FIRST, save("zeros", bytes(MIB)))
    assert three.links() == set(), "nothing is known, but a link was made"
    target = tmp_path / "given up"
    target.mkdir()
    with Known.of(one.folder, target, one.sealed.digest) as known:
        assert len(known) > 10
        assert len(list(target.iterdir())) == 1
    assert not list(target.iterdir())


def test_no_block_is_referred_to_for_ever(save: Save) -> None:
    """After MOST_GENERATIONS it is stored anew."""
    chain = [save("0", FIRST)]
    for number in range(1, MOST_GENERATIONS + 2):
        chain.append(save(str(number), FIRST, chain[-1]))
        chain[-1].verify()
    stored = [one.sealed.stored_bytes for one in chain]
    assert stored == [5 * MIB, *[0] * MOST_GENERATIONS, 5 * MIB]
    assert chain[-1].links() == set()


def test_pages_that_came_in_between_shift_nothing(save: Save) -> None:
    one = save("1", FIRST)
    two = save("2", FIRST[:MIB] + pages(4, 3 * ALIGNMENT) + FIRST[MIB:], one)
    assert two.sealed.shared_bytes > 0.92 * len(FIRST)


@pytest.mark.parametrize("moved_bytes", [ALIGNMENT, MIB - ALIGNMENT])
def test_where_buffers_end_does_not_matter(moved_bytes: int, save: Save) -> None:
    one = save("1", pages(5, 16 * MIB))
    two = save("2", pages(6, moved_bytes) + pages(5, 16 * MIB), one)
    assert two.sealed.stored_bytes < moved_bytes + 0.05 * 16 * MIB


def test_compressed_and_not(save: Save) -> None:
    text = b"".join(b"%09d, " % number for number in range(400_000))
    one = save("1", text, None, Compression.FAST)
    two = save("2", text[: 3 * MIB] + FIRST, one)
    three = save("3", FIRST + text, two, Compression.AUTO)
    for stored, contents in (two, text[: 3 * MIB] + FIRST), (three, FIRST + text):
        assert stored.contents() == contents
        stored.verify()
    assert two.sealed.shared_bytes > 2.7 * MIB
    assert three.sealed.shared_bytes > 6.5 * MIB


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 12), max_size=7), min_size=2, max_size=4), st.sampled_from(list(Compression)))
def test_any_series(series: list[list[int]], compression: Compression) -> None:
    """Each number is a piece of memory; every snapshot refers to the one before it."""
    sizes = [300_000, 8192, 40_960, GROUP_BYTES]
    with tempfile.TemporaryDirectory() as folder:
        former: Stored | None = None
        for number, kinds in enumerate(series):
            contents = b"".join(
                bytes(50_000 * -kind)
                if kind < 0
                else pages(kind, sizes[kind % 4])
                if kind % 3
                else b"ab" * sizes[kind % 4]
                for kind in kinds
            )
            target = Path(folder, str(number))
            target.mkdir()
            known = Known(target) if former is None else Known.of(former.folder, target, former.sealed.digest)
            with known:
                images = {"pages-1.img": contents}
                former = Stored(target, write_container(target / FILE_NAME, images, compression, known))
            former.verify()
            assert former.contents() == contents
            assert former.links() == set(former.sealed.packs)
            sealed = former.sealed
            assert (
                sealed.zero_bytes + sealed.shared_bytes + sealed.stored_bytes <= sealed.contents_bytes == len(contents)
            )


def test_a_pack_that_is_missing(save: Save) -> None:
    two = save("2", SECOND, save("1", FIRST))
    (link,) = two.links()
    (two.folder / link).unlink()
    with pytest.raises(ContainerDamaged, match=f"images/{link}, which holds part of it, is missing"):
        two.verify()
    with pytest.raises(ContainerDamaged, match="is missing"):
        reclaim.references(two.folder, two.sealed.digest)


def test_another_pack_in_its_place(save: Save) -> None:
    one, other = save("1", FIRST), save("other", FIRST)
    two = save("2", SECOND, one)
    (link,) = two.links()
    (two.folder / link).unlink()
    (two.folder / link).hardlink_to(other.folder / FILE_NAME)
    with pytest.raises(ContainerDamaged, match=f"images/{link} is another one"):
        two.verify()


@pytest.mark.parametrize("at", [7, 5000, MIB // 2, -5 * MIB // 2])
def test_damage_in_a_pack_that_is_referred_to(at: int, save: Save) -> None:
    one = save("1", FIRST)
    two = save("2", FIRST[: 4 * MIB], one)
    (link,) = two.links()
    with (two.folder / link).open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ContainerDamaged, match=r"images/pages-|begin like"):
        two.verify()


def test_a_pack_that_is_cut_off_is_not_referred_to(save: Save, tmp_path: Path) -> None:
    two = save("2", FIRST, save("1", FIRST))
    (link,) = two.links()
    os.truncate(two.folder / link, MIB)
    with pytest.raises(ContainerDamaged, match="is not there"):
        two.verify()
    refused(two, tmp_path, ContainerDamaged, "is cut off")


def refused(former: Stored, tmp_path: Path, error: type[Exception], words: str) -> None:
    """Nothing is known then, and no link is left."""
    target = tmp_path / "refused"
    target.mkdir()
    with pytest.raises(error, match=words):
        Known.of(former.folder, target, former.sealed.digest)
    assert not list(target.iterdir())
    target.rmdir()


def test_an_earlier_snapshot_that_is_not_what_it_was(save: Save, tmp_path: Path) -> None:
    one = save("1", FIRST)
    other = Stored(one.folder, save("other", FIRST).sealed)
    refused(other, tmp_path, ContainerDamaged, "another one than that of the dump")
    (one.folder / FILE_NAME).write_bytes(b"short")
    refused(one, tmp_path, ContainerDamaged, "cut off")
    (one.folder / FILE_NAME).unlink()
    refused(one, tmp_path, ContainerDamaged, "missing")


def test_on_another_file_system(save: Save, tmp_path: Path) -> None:
    one = save("1", FIRST)
    with tmpfs(tmp_path / "elsewhere", "size=1m") as folder:
        with pytest.raises(FileTrouble, match="cannot be referred to"):
            Known.of(one.folder, folder, one.sealed.digest)
        assert not list(folder.iterdir())


def blocks_of(path: Path) -> int:
    return path.stat().st_blocks * 512


def reclaimed(pack: Path, users: list[Stored]) -> int:
    """As the store does it: what none of the users needs, where there is nobody else."""
    with reclaim.hold(pack) as held:
        assert held is not None
        uses = [use for one in users for use in reclaim.references(one.folder, one.sealed.digest)]
        uses = [use for use in uses if use.inode == held.inode]
        assert held.links == len(uses)
        return reclaim.punch(held, [span for use in uses for span in use.ranges])


def test_what_nobody_needs_is_given_back(save: Save) -> None:
    one = save("1", FIRST)
    two = save("2", SECOND, one)
    three = save("3", FIRST[: 3 * MIB], one)
    four = save("4", FIRST[:MIB], three)
    (link,) = two.links()
    assert reclaimed(two.folder / link, [one, two, three, four]) == 0, "its own snapshot needs all of it"
    shutil.rmtree(one.folder)
    shutil.rmtree(three.folder)
    before = blocks_of(two.folder / link)
    assert 0.8 * MIB < reclaimed(two.folder / link, [two, four]) < 1.5 * MIB
    assert before - blocks_of(two.folder / link) > 0.8 * MIB
    assert reclaimed(two.folder / link, [two, four]) == 0
    shutil.rmtree(two.folder)
    assert 2.5 * MIB < reclaimed(four.folder / link, [four]) < 3.3 * MIB
    four.verify()
    assert four.contents() == FIRST[:MIB]
    five = save("5", FIRST, four)
    five.verify()
    assert five.contents() == FIRST


def test_nobody_refers_to_what_is_being_reclaimed(save: Save, tmp_path: Path) -> None:
    one = save("1", FIRST)
    with reclaim.hold(one.folder / FILE_NAME) as held:
        assert held is not None
        refused(one, tmp_path, FileTrouble, "cannot be referred to")
    target = tmp_path / "new"
    target.mkdir()
    with Known.of(one.folder, target, one.sealed.digest), reclaim.hold(one.folder / FILE_NAME) as held:
        assert held is None
    with reclaim.hold(tmp_path / "gone") as held:
        assert held is None


def test_it_is_unpacked_without_ckptctl(save: Save, tmp_path: Path) -> None:
    chance = random.Random(7)
    floats = struct.pack(f"<{MIB // 2}e", *(chance.gauss(0, 0.02) for _ in range(MIB // 2)))
    one = save("1", FIRST + floats, None, Compression.BETTER)
    two = save("2", floats + bytes(MIB) + SECOND + b"end", one, Compression.AUTO)
    program = Path(unpack.__file__).read_bytes()
    for words in ([], ["-I", "-S"]):  # the package, and the program zstd
        folder = tmp_path / f"unpacked{len(words)}"
        folder.mkdir()
        command = [sys.executable, *words, "-", two.folder / FILE_NAME, folder]
        subprocess.run(command, input=program, check=True)
        assert (folder / "pages-1.img").read_bytes() == two.contents()
    target = tmp_path / "none"
    target.mkdir()
    failed = subprocess.run(
        [sys.executable, "-I", "-S", "-", two.folder / FILE_NAME, target],
        input=program,
        env={"PATH": str(target)},
        capture_output=True,
    )
    assert failed.returncode == 1
    assert b"install the program zstd" in failed.stderr
