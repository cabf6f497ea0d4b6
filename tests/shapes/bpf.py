"""A BPF object: an array map, which CRIU saves, or a program (--program), which it cannot."""

import ctypes
import struct

from shape import arguments, libc, need, run

options = arguments(lambda parser: parser.add_argument("--program", action="store_true"))
code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
license_text = ctypes.create_string_buffer(b"GPL")
if options.program:
    load = struct.pack("IIQQIIQII", 1, 2, ctypes.addressof(code), ctypes.addressof(license_text), 0, 0, 0, 0, 0)
    descriptor = libc.syscall(321, 5, ctypes.create_string_buffer(load, 120), 120)
else:
    descriptor = libc.syscall(321, 0, ctypes.create_string_buffer(struct.pack("IIIII", 2, 4, 8, 16, 0), 72), 72)
need(descriptor >= 0, "no bpf")
run(lambda k: None, options)
