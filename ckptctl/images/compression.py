"""Compressing blocks with zstd, and undoing it without trusting what was stored.

Numbers of two or four bytes, such as weights, hardly compress as they lie: what varies little, sign and exponent, is
scattered among what looks like noise. Their bytes are taken apart into planes, each a block of zstd of its own with
its own entropy coding, and nothing else: on training state that is both smaller and faster than zstd's search for
repetitions, and than planes that share one coding.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.images.container import ALIGNMENT, GROUP_BYTES, Codec
from ckptctl.images.levels import Compression

# Width of the numbers whose bytes were taken apart.
_WIDTHS: Final = {Codec.ZSTD: 1, Codec.ZSTD_OF_4: 4, Codec.ZSTD_OF_2: 2}
# What does not shrink by this much is stored as it is: it is then read without being decompressed.
_WORTH_IT: Final = 0.95
# A shuffled block costs more to read.
_SHUFFLE_WORTH_IT: Final = 0.97
_SAMPLE_BYTES: Final = 16 << 10
# Neighbours are mostly parts of one tensor: only one of them is tried out.
_BLOCKS_PER_PROBE: Final = 4
# ZSTD_c_literalCompressionMode, and its value "always": without it a level below 0 leaves out the entropy coding.
_LITERALS: Final = 1002
_ALWAYS: Final = 1
_NO_SEARCH: Final = -1000
_PLANES_WINDOW_LOG: Final = 17
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 32 << 20  # the most that it takes
_LONGEST_WINDOW_LOG: Final = GROUP_BYTES.bit_length() - 1
_LEVELS: Final = {Compression.FAST: -5, Compression.AUTO: 1, Compression.BETTER: 3}


class ZstdMissing(CkptctlError):
    """There is nothing to compress or decompress with."""

    code = "E_ZSTD_MISSING"
    exit_status = ExitStatus.INCOMPATIBLE


class NotDecodable(Exception):
    """A block cannot be what was stored."""


@cache
def zstd() -> Any:
    """The module, of Python itself from 3.14 on. Raises ZstdMissing."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            module = import_module(name)
            _keep_freed_memory()
            return module
    raise ZstdMissing(
        "Memory cannot be compressed or decompressed: this Python has no zstd.",
        hint="Install the package backports.zstd.",
    )


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: contexts and blocks are of a size that it would give back to the kernel each time.

    To get them again page by page would take half as long as the compression.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not in musl
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class Encoder:
    """Chooses how to store blocks. For several threads."""

    def __init__(self, compression: Compression) -> None:
        """`compression` is not OFF. Raises ZstdMissing."""
        self._compression = compression
        self._codecs = (Codec.ZSTD,) if compression is Compression.FAST else tuple(_WIDTHS)
        self._contexts = _Contexts(_LEVELS[compression])

    def encode(self, blocks: Iterable[memoryview]) -> Iterator[tuple[Codec, bytes | memoryview]]:
        """How each of these blocks, neighbours in memory, is to be stored, and as what."""
        choice, trusted = Codec.RAW, 0
        for block in blocks:
            if self._compression is Compression.BETTER:
                codec, data = min(self._all(block), key=lambda one: len(one[1]))
            else:
                if not trusted:
                    choice, trusted = self._probe(block), _BLOCKS_PER_PROBE
                codec = Codec.ZSTD if len(block) % ALIGNMENT else choice
                data = self._encode(codec, block)
                trusted -= 1
            if len(data) < len(block) * _WORTH_IT:
                yield codec, data
            else:
                yield Codec.RAW, block
                trusted = trusted if choice is Codec.RAW else 0

    def _probe(self, block: memoryview) -> Codec:
        """What is best for a sample from the middle of the block."""
        start = max(0, (len(block) - _SAMPLE_BYTES) // 2)
        sample = block[start : start + _SAMPLE_BYTES]
        sizes = {codec: len(data) for codec, data in self._all(sample)}
        best = min(sizes, key=sizes.__getitem__)
        if sizes[best] > len(sample) * _WORTH_IT:
            return Codec.RAW
        return best if sizes[best] < sizes[Codec.ZSTD] * _SHUFFLE_WORTH_IT else Codec.ZSTD

    def _all(self, block: memoryview) -> Iterator[tuple[Codec, bytes | memoryview]]:
        return ((codec, self._encode(codec, block)) for codec in self._codecs if not len(block) % _WIDTHS[codec])

    def _encode(self, codec: Codec, block: memoryview) -> bytes | memoryview:
        if codec is Codec.RAW:
            return block
        width = _WIDTHS[codec]
        if width == 1:
            return self._contexts.compress(block)
        contents = bytes(block)
        return self._contexts.compress_planes([contents[place::width] for place in range(width)])


class _Contexts(threading.local):
    """Those of each thread: they have tables of up to 1 MiB, which are set up once."""

    def __init__(self, level: int) -> None:
        module = zstd()
        parameter = module.CompressionParameter
        self._search = module.ZstdCompressor(level=level)
        self._planes = module.ZstdCompressor(
            options={
                parameter.compression_level: _NO_SEARCH,
                _LITERALS: _ALWAYS,
                # Nothing is looked for further back, and who decompresses it needs the less.
                parameter.window_log: _PLANES_WINDOW_LOG,
            }
        )

    def compress(self, block: memoryview) -> bytes:
        """One frame."""
        data: bytes = self._search.compress(block, self._search.FLUSH_FRAME)
        return data

    def compress_planes(self, planes: list[bytes]) -> bytes:
        """One frame for all."""
        one = self._planes
        pieces = [one.compress(plane, one.FLUSH_BLOCK) for plane in planes[:-1]]
        return b"".join([*pieces, one.compress(planes[-1], one.FLUSH_FRAME)])


def decode(codec: int, stored: memoryview, length_bytes: int) -> bytes | bytearray:
    """The contents of a compressed block, `length_bytes` of them and never more. Raises NotDecodable, ZstdMissing."""
    planes = _decompress(stored, length_bytes)
    width = _WIDTHS[Codec(codec)]
    if width == 1:
        return planes
    share, odd = divmod(length_bytes, width)
    if odd:
        raise NotDecodable
    contents = bytearray(length_bytes)
    for place in range(width):
        contents[place::width] = planes[place * share : (place + 1) * share]
    return contents


def _decompress(stored: memoryview, length_bytes: int) -> bytes:
    """The contents of the only frame that there is."""
    module = zstd()
    decompressor = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _LONGEST_WINDOW_LOG})
    try:
        # One more than there may be: else its end would not be seen.
        contents: bytes = decompressor.decompress(stored, length_bytes + 1)
    except module.ZstdError as error:
        raise NotDecodable from error
    if not decompressor.eof or len(contents) != length_bytes or decompressor.unused_data:
        raise NotDecodable
    return contents
