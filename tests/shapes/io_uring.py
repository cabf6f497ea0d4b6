"""An io_uring, as libuv and some data loaders open it; --mapped maps its rings too. CRIU cannot save it."""

import ctypes
import mmap

from shape import arguments, libc, need, run

options = arguments(lambda parser: parser.add_argument("--mapped", action="store_true"))
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
need(ring >= 0, "no io_uring")
area = mmap.mmap(ring, 4096) if options.mapped else None
run(lambda k: None, options)
