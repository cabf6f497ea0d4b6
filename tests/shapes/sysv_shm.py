"""A SysV shared memory segment. CRIU saves it only together with an IPC namespace of its own."""

import ctypes

from shape import arguments, check, libc, need, run

options = arguments()
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 1 << 20, 0o1600)
need(segment >= 0, "no segment")
address = libc.shmat(segment, None, 0)
libc.shmctl(segment, 0, None)
ctypes.memset(address, 7, 16)
run(lambda k: check(ctypes.string_at(address, 16) == b"\7" * 16, "the segment changed"), options)
