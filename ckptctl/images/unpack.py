"""Make CRIU's page images from a container again. A program of its own, for any Python: nothing of ckptctl is imported.

    python unpack.py CONTAINER FOLDER

The format is described in docs/reference/image-container.md. Packs that the container refers to must lie beside it.
Compressed blocks need compression.zstd (Python 3.14), the package backports.zstd, or the program zstd. Digests are not
compared here, for want of BLAKE3.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

_BLOCK = struct.Struct("<QIIBxH32s")
_ZERO, _RAW, _ZSTD, _ZSTD_OF_4, _ZSTD_OF_2 = range(5)
_WIDTHS = {_ZSTD: 1, _ZSTD_OF_4: 4, _ZSTD_OF_2: 2}


def main(argv: Sequence[str]) -> None:
    """See the module."""
    path = Path(argv[0])
    with ExitStack() as stack:
        container = stack.enter_context(path.open("rb"))
        index = read_index(container)
        (count,) = struct.unpack_from("<I", index)
        names = [index[at : at + 16].hex() for at in range(4, 4 + count * 20, 20)]
        beside = [path.with_name(f"pages-{name}.blocks").open("rb") for name in names[1:]]
        packs = [container, *(stack.enter_context(one) for one in beside)]
        position = 4 + count * 20
        (count,) = struct.unpack_from("<I", index, position)
        position += 4
        for _ in range(count):
            length, size, blocks = struct.unpack_from("<HQI", index, position)
            position += 14 + length
            name = index[position - length : position].decode("ascii")
            entries = index[position : position + blocks * _BLOCK.size]
            position += len(entries)
            if "/" in name:
                raise ValueError("damaged index")
            with Path(argv[1], name).open("xb") as image:
                write_image(packs, image, size, entries)


def read_index(container: BinaryIO) -> bytes:
    """The index, found by the footer."""
    end = container.seek(-64, os.SEEK_END)
    offset, size, _, version, _, magic = struct.unpack("<QQ32sII8s", container.read(64))
    if magic != b"CKPTEND\n" or version != 1 or offset + size != end:
        raise ValueError("this is no whole container of version 1")
    container.seek(offset)
    return container.read(size)


def write_image(packs: Sequence[BinaryIO], image: BinaryIO, size: int, entries: bytes) -> None:
    """One image; blocks of zeros become holes."""
    for offset, stored, length, codec, pack, _ in _BLOCK.iter_unpack(entries):
        if codec == _ZERO:
            image.seek(length, os.SEEK_CUR)
            continue
        packs[pack].seek(offset)
        data = packs[pack].read(stored)
        contents = data if codec == _RAW else expand(data, _WIDTHS[codec])
        if len(contents) != length:
            raise ValueError("a block is damaged")
        image.write(contents)
    image.truncate(size)


def expand(data: bytes, width: int) -> bytes:
    """A compressed block; bytes of numbers of this width lie apart in it."""
    shuffled = decompressor()(data)
    contents = bytearray(len(shuffled))
    share = len(shuffled) // width
    for place in range(width):
        contents[place::width] = shuffled[place * share : (place + 1) * share]
    return bytes(contents)


def decompressor() -> Callable[[bytes], bytes]:
    """What this machine has for zstd."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            decompress: Callable[[bytes], bytes] = import_module(name).decompress
            return decompress
    return by_program


def by_program(data: bytes) -> bytes:
    """Slow, one process for each block, but found nearly everywhere."""
    import subprocess

    try:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError:
        sys.exit("The memory is compressed with zstd: install the program zstd, or Python 3.14 or newer.")


if __name__ == "__main__":
    main(sys.argv[1:])
