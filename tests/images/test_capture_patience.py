"""A capture that takes all into memory first, so that the job waits for nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptctl.images.capture import LEAST_BUFFERS, Buffers, Capture
from ckptctl.images.container import FILE_NAME
from ckptctl.images.reader import Reader
from ckptctl.interrupt import Never
from support.image_stream import Talker

MIB = 1 << 20


@pytest.fixture(params=[64, 0], ids=["it fits", "it does not"])
def capture(request: pytest.FixtureRequest, folders: tuple[Path, Path]) -> Iterator[Capture]:
    with Capture(*folders, Buffers(request.param * MIB, whole_bytes=MIB)) as made:
        yield made


def test_nothing_is_written_before_the_job_runs_on(capture: Capture, folders: tuple[Path, Path]) -> None:
    """Unless it does not fit: then the oldest of it makes room, and nobody waits for ever."""
    fits = capture.memory_bytes == 64 * MIB
    assert fits or capture.memory_bytes == LEAST_BUFFERS * 2 * MIB
    talker = Talker(capture)
    pages = {f"pages-{number}.img": os.urandom(10 * MIB + 4096) for number in range(3)}
    for name, contents in pages.items():
        talker.send(name, contents)
    container = folders[0] / FILE_NAME
    written = container.stat().st_size
    assert written == 4096 if fits else written >= 8 * MIB
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    capture.finish(Never(), lambda _done, _total: None)
    with Reader(container) as found:
        assert {one.name: b"".join(map(bytes, found.pieces(one))) for one in found.index.images} == pages


def test_given_up_while_it_waits(capture: Capture) -> None:
    talker = Talker(capture)
    talker.send("pages-1.img", os.urandom(4 * MIB))
    capture.cancel()
    capture.close()
    assert talker.answer() == b""
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []
