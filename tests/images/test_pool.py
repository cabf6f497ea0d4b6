"""The memory of the image stream."""

from __future__ import annotations

import math

import pytest

from ckptctl.images import blockfile
from ckptctl.images.pool import Pool

MIB = 1 << 20


@pytest.mark.parametrize(("limit_s", "fetched"), [(0, 32 * MIB), (math.inf, 96 * MIB)])
def test_memory_is_fetched_for_no_longer_than_that(limit_s: float, fetched: int) -> None:
    memory = blockfile.fetch(96 * MIB, least_bytes=32 * MIB, limit_s=limit_s)
    assert len(memory) == fetched
    memory[-1] = 1


def test_a_pool_has_the_buffers_that_came() -> None:
    pool = Pool(96 * MIB, least=4, limit_s=0)
    assert pool.size_bytes == 16 * MIB  # what is fetched at once
    taken = [pool.take() for _ in range(8)]
    assert {len(buffer) for buffer in taken} == {2 * MIB}
    pool.close()
