"""Much private memory (--mib, 256 unless told) with random contents, of which a piece is checked at every step."""

import hashlib
import random

from shape import arguments, check, run

PIECE = 1 << 20
options = arguments(lambda parser: parser.add_argument("--mib", type=int, default=256))
pieces = [bytearray(random.Random(number).randbytes(PIECE)) for number in range(options.mib)]
digests = [hashlib.sha256(piece).digest() for piece in pieces]


def step(k: int) -> None:
    number = k * 7 % len(pieces)
    check(hashlib.sha256(pieces[number]).digest() == digests[number], f"piece {number} of the memory changed")


run(step, options)
