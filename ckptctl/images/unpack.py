"""Make CRIU's page images from a container again. A program of its own, for any Python: nothing of ckptctl is imported.

    python unpack.py CONTAINER FOLDER

The format is described in docs/reference/image-container.md. Digests are not compared here, for want of BLAKE3.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 2 << 20
_BLOCK = struct.Struct("<QIB3x32s")
_ZERO, _RAW = 0, 1


def main(argv: Sequence[str]) -> None:
    """See the module."""
    with open(argv[0], "rb") as container:
        index = read_index(container)
        (count,) = struct.unpack_from("<I", index)
        position = 4
        for _ in range(count):
            length, size = struct.unpack_from("<HQ", index, position)
            position += 10 + length
            name = index[position - length : position].decode("ascii")
            blocks = -(-size // _BLOCK_BYTES)
            entries = index[position : position + blocks * _BLOCK.size]
            position += len(entries)
            if "/" in name:
                raise ValueError("damaged index")
            with Path(argv[1], name).open("xb") as image:
                write_image(container, image, size, entries)


def read_index(container: BinaryIO) -> bytes:
    """The index, found by the footer."""
    end = container.seek(-64, os.SEEK_END)
    offset, size, _, version, _, magic = struct.unpack("<QQ32sII8s", container.read(64))
    if magic != b"CKPTEND\n" or version != 1 or offset + size != end:
        raise ValueError("this is no whole container of version 1")
    container.seek(offset)
    return container.read(size)


def write_image(container: BinaryIO, image: BinaryIO, size: int, entries: bytes) -> None:
    """One image; blocks of zeros become holes."""
    for number, (offset, stored, codec, _) in enumerate(_BLOCK.iter_unpack(entries)):
        if codec == _RAW:
            container.seek(offset)
            image.seek(number * _BLOCK_BYTES)
            image.write(container.read(stored))
        elif codec != _ZERO:
            raise ValueError("a block is stored in a way that this program does not know; use ckptctl export")
    image.truncate(size)


if __name__ == "__main__":
    main(sys.argv[1:])
