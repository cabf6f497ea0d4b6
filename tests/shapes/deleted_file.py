"""An open file without a name, 100 MiB unless --mib says otherwise, whose contents are checked piece by piece."""

import os
import random

from shape import arguments, check, run

PIECE = 1 << 20
options = arguments(lambda parser: parser.add_argument("--mib", type=int, default=100))
path = f"{options.log}.deleted"
file = os.open(path, os.O_RDWR | os.O_CREAT)


def piece(number: int) -> bytes:
    return random.Random(number).randbytes(PIECE)


for number in range(options.mib):
    os.write(file, piece(number))
os.unlink(path)


def step(k: int) -> None:
    number = k % options.mib
    check(os.pread(file, PIECE, number * PIECE) == piece(number), f"piece {number} of the deleted file changed")
    check(os.fstat(file).st_nlink == 0, "the file got a name")


run(step, options)
