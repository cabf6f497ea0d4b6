"""An open file without a name, 100 MiB unless --mib says otherwise, whose contents are checked piece by piece.

--sparse-gib makes it that many GiB larger, by a hole.
"""

import argparse
import os
import random

from shape import arguments, check, run

PIECE = 1 << 20


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--sparse-gib", type=int, default=0)


options = arguments(add)
path = f"{options.log}.deleted"
file = os.open(path, os.O_RDWR | os.O_CREAT)


def piece(number: int) -> bytes:
    return random.Random(number).randbytes(PIECE)


for number in range(options.mib):
    os.write(file, piece(number))
os.ftruncate(file, options.mib * PIECE + (options.sparse_gib << 30))
os.unlink(path)


def step(k: int) -> None:
    number = k % options.mib
    check(os.pread(file, PIECE, number * PIECE) == piece(number), f"piece {number} of the deleted file changed")
    check(os.fstat(file).st_nlink == 0, "the file got a name")


run(step, options)
