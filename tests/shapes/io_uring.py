"""An io_uring, as libuv and some data loaders open it; --mapped maps its rings too. CRIU cannot save it.

--optional: does without, as libuv does, where the kernel refuses.
"""

import argparse
import ctypes
import mmap

from shape import arguments, libc, need, run


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--optional", action="store_true")


options = arguments(add)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
need(ring >= 0 or options.optional, "no io_uring")
area = mmap.mmap(ring, 4096) if options.mapped else None
run(lambda k: None, options)
