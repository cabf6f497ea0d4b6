"""How much memory a stream of images may take."""

from __future__ import annotations

import math

import pytest

from ckptctl.process import memory
from ckptctl.snapshot.stream import Room
from ckptctl.snapshot.ways import Aim

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("aim", "wanted", "free", "taken"),
    [
        (Aim.AUTO, 0, 100 * GIB, 64 * MIB),  # a job that waits for the disk anyway
        (Aim.PAUSE, 0, 100 * GIB, 64 * MIB),
        (Aim.AUTO, 10 * GIB, 100 * GIB, 10.5 * GIB),
        (Aim.PAUSE, 10 * GIB, 100 * GIB, 10.5 * GIB),
        (Aim.DURABLE, 10 * GIB, 100 * GIB, 64 * MIB),
        (Aim.AUTO, 40 * GIB, 100 * GIB, 25 * GIB),
        (Aim.PAUSE, 60 * GIB, 100 * GIB, 50 * GIB),
        (Aim.PAUSE, 60 * GIB, 0, 64 * MIB),
    ],
)
def test_memory_by_aim(aim: Aim, wanted: int, free: int, taken: float) -> None:
    assert Room(wanted, free).buffers(aim).memory_bytes == taken


@pytest.mark.parametrize(
    ("aim", "wanted", "whole", "limit_s"),
    [
        (Aim.AUTO, 10 * GIB, None, 2.5),
        (Aim.AUTO, 0, None, math.inf),  # a job that ends waits for the disk
        (Aim.PAUSE, 10 * GIB, 10 * GIB, math.inf),
        (Aim.PAUSE, 0, None, math.inf),
        (Aim.DURABLE, 10 * GIB, None, math.inf),
    ],
)
def test_what_the_pause_is_worth(aim: Aim, wanted: int, whole: int | None, limit_s: float) -> None:
    buffers = Room(wanted, 100 * GIB).buffers(aim)
    assert buffers.whole_bytes == whole
    assert buffers.limit_s == pytest.approx(limit_s)


def test_the_peak_of_memory_counts_from_where_it_was_forgotten() -> None:
    first = bytearray(64 * MIB)
    for at in range(0, len(first), 4096):
        first[at] = 1
    before = memory.peak_bytes()
    del first
    memory.forget_peak()
    after = memory.peak_bytes()
    assert before is not None
    assert after is not None
    assert after < before - 32 * MIB
