"""A performance counter, as profilers open it. CRIU cannot save it."""

import ctypes
import struct

from shape import arguments, libc, need, run

options = arguments()
attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0), 112)
need(libc.syscall(298, attributes, 0, -1, -1, 0) >= 0, "no perf event")
run(lambda k: None, options)
