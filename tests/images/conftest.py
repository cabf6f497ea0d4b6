"""Containers with known contents, and a program that talks to a capture or a server as CRIU does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ckptctl.images.capture import Buffers, Capture
from ckptctl.images.container import FILE_NAME
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.writer import Sealed
from support.image_stream import write_container

MakeContainer = Callable[[Mapping[str, bytes]], tuple[Path, Sealed]]
MakeCapture = Callable[..., Capture]


@pytest.fixture
def make_container(tmp_path: Path) -> MakeContainer:
    def make(images: Mapping[str, bytes]) -> tuple[Path, Sealed]:
        path = tmp_path / FILE_NAME
        path.unlink(missing_ok=True)
        return path, write_container(path, images)

    return make


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images and logs."""
    images, logs = tmp_path / "images", tmp_path / "logs"
    images.mkdir()
    logs.mkdir()
    return images, logs


@pytest.fixture
def make_capture(folders: tuple[Path, Path]) -> Iterator[MakeCapture]:
    made: list[Capture] = []

    def make(
        images: Path = folders[0],
        memory_bytes: int = 0,
        compression: Compression = Compression.OFF,
        known: Known | None = None,
    ) -> Capture:
        made.append(Capture(images, folders[1], Buffers(memory_bytes), compression=compression, known=known))
        return made[-1]

    yield make
    for capture in made:
        capture.close()
