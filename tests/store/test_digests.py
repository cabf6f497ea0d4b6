from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from ckptctl.files import FileTrouble
from ckptctl.interrupt import Interrupted, Never
from ckptctl.store.digests import digest_descriptor, digest_images
from ckptctl.store.manifest import ImageRecord

MEBIBYTE = 1 << 20


class AfterPieces:
    """An interrupt that comes after some pieces."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("Stopped by SIGINT.")


@pytest.mark.parametrize("size", [0, 1, 4 * MEBIBYTE - 1, 4 * MEBIBYTE, 4 * MEBIBYTE + 1, 33 * MEBIBYTE + 7])
def test_the_digest_is_that_of_the_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "x").write_bytes(data)
    pieces: list[int] = []
    descriptor = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        assert digest_descriptor(descriptor, pieces.append) == (size, blake3(data).hexdigest())
    finally:
        os.close(descriptor)
    assert sum(pieces) == size


def test_every_file_is_recorded_by_name(tmp_path: Path) -> None:
    contents = {"b.img": b"b" * 5_000_000, "a.img": b"", "deep/c;d 'e.img": b"c", "z.img": b"z" * 100}
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    told: list[tuple[int, int]] = []
    records = digest_images(tmp_path, Never(), lambda done, total: told.append((done, total)))
    assert records == tuple(
        ImageRecord(name, len(data), blake3(data).hexdigest()) for name, data in sorted(contents.items())
    )
    total = sum(len(data) for data in contents.values())
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_an_interrupt_ends_it_and_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(64 * MEBIBYTE))
    before = threading.active_count()
    told: list[int] = []
    with pytest.raises(Interrupted):
        digest_images(tmp_path, AfterPieces(3), lambda done, total: told.append(done))
    assert len(told) == 3
    assert threading.active_count() == before


def test_a_file_that_cannot_be_read_is_trouble(tmp_path: Path) -> None:
    before = threading.active_count()
    descriptor = os.open(tmp_path, os.O_RDONLY)  # reading a folder fails with EISDIR
    try:
        with pytest.raises(IsADirectoryError):
            digest_descriptor(descriptor, lambda size: None)
    finally:
        os.close(descriptor)
    assert threading.active_count() == before
    with pytest.raises(FileTrouble):
        digest_images(tmp_path / "none", Never(), lambda done, total: None)
