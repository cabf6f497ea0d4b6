"""Compressed blocks: what comes back is what went in, and nothing else can make the reader work without end."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptctl.images import reader
from ckptctl.images.compression import Encoder, NotDecodable, decode
from ckptctl.images.container import FILE_NAME, GROUP_BYTES, Codec
from ckptctl.images.levels import Compression
from ckptctl.images.reader import Reader
from support.image_stream import write_container

CHANCE = random.Random(5)
FLOATS = struct.pack("<32768f", *(CHANCE.gauss(0, 0.02) for _ in range(32768)))
HALVES = struct.pack("<65536e", *(CHANCE.gauss(0, 0.02) for _ in range(65536)))
TEXT = b"".join(b"line %d of a text, " % number for number in range(6000))[: 100 << 10]
NOISE = CHANCE.randbytes(128 << 10)
EVERY = [one for one in Compression if one is not Compression.OFF]


@pytest.mark.parametrize("compression", EVERY)
def test_each_kind_of_memory_has_its_codec(compression: Compression) -> None:
    encoder = Encoder(compression)
    found = {}
    for name, contents in {"floats": FLOATS, "halves": HALVES, "text": TEXT, "noise": NOISE}.items():
        ((codec, data),) = encoder.encode([memoryview(contents)])
        if codec is not Codec.RAW:
            assert decode(codec, memoryview(data), len(contents)) == contents
            assert len(data) < len(contents) * 0.95
        found[name] = codec
    assert found["text"] is Codec.ZSTD
    assert found["noise"] is Codec.RAW
    if compression is not Compression.FAST:
        assert found["floats"] is Codec.ZSTD_OF_4
        assert found["halves"] is Codec.ZSTD_OF_2


def test_planes_are_smaller_than_what_zstd_makes_of_them_by_itself() -> None:
    ((_, data),) = Encoder(Compression.AUTO).encode([memoryview(FLOATS)])
    assert len(data) < 0.95 * len(zstd.compress(FLOATS, level=3))


def test_a_decision_is_made_for_neighbours(tmp_path: Path) -> None:
    """Also a wrong one: what does not shrink is stored as it is."""
    blocks = [FLOATS, NOISE, TEXT, FLOATS, NOISE]
    encoded = [*Encoder(Compression.AUTO).encode(map(memoryview, blocks))]
    assert encoded[0][0] is Codec.ZSTD_OF_4
    assert encoded[1][0] is encoded[4][0] is Codec.RAW
    for contents, (codec, data) in zip(blocks, encoded, strict=True):
        assert (data if codec is Codec.RAW else decode(codec, memoryview(data), len(contents))) == contents


@pytest.mark.parametrize("compression", EVERY)
def test_a_container_of_all_kinds(compression: Compression, tmp_path: Path) -> None:
    mixed = b"".join([FLOATS, bytes(300 << 10), NOISE[:5000], HALVES, TEXT, NOISE, FLOATS[::-1], FLOATS])
    images = {
        "pages-1.img": mixed * 3,
        "pages-2.img": TEXT[:4099],
        "pages-3.img": bytes(GROUP_BYTES) + FLOATS[:-1],
        "pages-4.img": b"",
    }
    path = tmp_path / FILE_NAME
    sealed = write_container(path, images, compression)
    with Reader(path) as found:
        assert {image.name: b"".join(map(bytes, found.pieces(image))) for image in found.index.images} == images
        assert sealed.stored_bytes == found.index.stored_bytes
    read: list[int] = []
    reader.verify(path, sealed.digest, read.append)
    assert sum(read) == sealed.stored_bytes
    fresh = sealed.contents_bytes - sealed.zero_bytes - sealed.shared_bytes
    assert sealed.stored_bytes < (1 if compression is Compression.FAST else 0.93) * fresh
    assert sealed.size_bytes < sealed.stored_bytes + 200_000


def test_a_frame_never_gives_more_than_its_block() -> None:
    bomb = zstd.compress(bytes(1 << 30), level=1)
    for codec in (Codec.ZSTD, Codec.ZSTD_OF_2, Codec.ZSTD_OF_4):
        with pytest.raises(NotDecodable):
            decode(codec, memoryview(bomb), GROUP_BYTES)
    with pytest.raises(NotDecodable):
        decode(Codec.ZSTD, memoryview(zstd.compress(b"abc")), 2)


def test_a_window_larger_than_a_block_is_refused() -> None:
    """It would be allocated before anything is read."""
    wide = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=wide)
    frame = compressor.compress(b"abc") + compressor.flush()
    with pytest.raises(NotDecodable):
        decode(Codec.ZSTD, memoryview(frame), 3)


@pytest.mark.parametrize(
    "stored",
    [
        zstd.compress(b"abcd") + b"x",
        zstd.compress(b"abcd") + zstd.compress(b""),
        zstd.compress(b"ab") + zstd.compress(b"cd"),
        zstd.compress(b"abcd")[:-1],
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd",
        b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
        b"",
    ],
    ids=["something behind it", "a frame behind it", "two frames", "cut off", "skipped", "skipped for long", "nothing"],
)
def test_what_is_no_frame_of_the_block(stored: bytes) -> None:
    with pytest.raises(NotDecodable):
        decode(Codec.ZSTD, memoryview(stored), 4)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([2, 3, 4]), st.integers(1, GROUP_BYTES), st.booleans())
def test_any_bytes_are_refused(stored: bytes, codec: int, length: int, magic: bool) -> None:
    with pytest.raises(NotDecodable):
        decode(codec, memoryview(b"\x28\xb5\x2f\xfd" * magic + stored), length)
