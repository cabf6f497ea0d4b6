"""Where one block ends and the next begins: decided by the contents, so that equal memory is cut into equal blocks.

A few bytes of each page are looked at. Pages that came or went further ahead do not matter: at most the two blocks
beside them change. Pages of zeros make blocks of their own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final

from ckptctl.images.container import ALIGNMENT, GROUP_BYTES

# Multiples of 4: what changes first in a float is its lowest byte. Two lines of the cache for each page, for they are
# what it costs to look at one.
_SAMPLED: Final = (8, 20, 2056, 2068)
_LEAST_PAGES: Final = 8
# Behind the least, one page of 256 / 12 begins a block: 116 KiB on average. Smaller ones would find little more that is
# equal, and cost more: 8 us each.
_BEGINS: Final = re.compile(rb"[\x00-\x0b]")
_LEAST_ZERO_PAGES: Final = 4
_ZEROS: Final = re.compile(rb"\x00{%d,}" % _LEAST_ZERO_PAGES)
# Of a full buffer: what is behind the last end of a block here comes again at the beginning of the next buffer.
_LOOKED_THROUGH_BYTES: Final = 384 << 10


def _permutations() -> tuple[bytes, ...]:
    """One for each sample, the same ones for ever: snapshots are cut by them."""
    chance = random.Random(1)
    return tuple(bytes(chance.sample(range(256), 256)) for _ in _SAMPLED)


_MIXED: Final = _permutations()


def cut(piece: memoryview) -> Iterator[tuple[int, int, bool]]:
    """Start and end of each block, and whether it looks like zeros. A last page may be incomplete."""
    whole = len(piece) // ALIGNMENT * ALIGNMENT
    mixed, any_set = _look_at(piece[:whole])
    start = 0
    for zeros in _ZEROS.finditer(any_set):
        yield from _cut_pages(mixed, start, zeros.start())
        yield zeros.start() * ALIGNMENT, zeros.end() * ALIGNMENT, True
        start = zeros.end()
    yield from _cut_pages(mixed, start, whole // ALIGNMENT)
    if whole < len(piece):
        yield whole, len(piece), False


def end_of_part(buffer: memoryview) -> int:
    """How much of a full buffer is stored; the rest belongs before what is read next.

    So that a block is not cut by where buffers end: with memory that has moved within an image, that would be another
    place in each snapshot.
    """
    start = GROUP_BYTES - _LOOKED_THROUGH_BYTES
    *_, (last, _, _) = cut(buffer[start:GROUP_BYTES])
    return start + last if last else GROUP_BYTES


def _look_at(pages: memoryview) -> tuple[bytes, bytes]:
    """A byte that stands for each page, and one that is zero where all samples of the page are."""
    mixed = any_set = 0
    for offset, permutation in zip(_SAMPLED, _MIXED, strict=True):
        sample = pages[offset::ALIGNMENT].tobytes()
        mixed ^= int.from_bytes(sample.translate(permutation))
        any_set |= int.from_bytes(sample)
    count = len(pages) // ALIGNMENT
    return mixed.to_bytes(count), any_set.to_bytes(count)


def _cut_pages(mixed: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The same for the pages from `start` to `end`, none of which is taken for zeros."""
    for found in _BEGINS.finditer(mixed, start + 1, end):
        at = found.start()
        # Pages that look the same may be many one behind the other: none of them begins a block.
        if at - start >= _LEAST_PAGES and mixed[at] != mixed[at - 1]:
            yield start * ALIGNMENT, at * ALIGNMENT, False
            start = at
    if start < end:
        yield start * ALIGNMENT, end * ALIGNMENT, False
