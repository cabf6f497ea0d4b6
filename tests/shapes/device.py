"""An open device (--path), and with --mapped a mapping of it; with --only-mapped nothing but the mapping, which is
taken away on SIGUSR2."""

import argparse
import ctypes
import mmap
import os
import signal

from shape import arguments, check, need, run

_BYTES = 4096
_MAP_FAILED = ctypes.c_void_p(-1).value


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", default="/dev/kmsg")
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--only-mapped", action="store_true")


def map_alone(path: str) -> None:
    """Python's own mapping keeps a descriptor besides."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    descriptor = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, _BYTES, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    check(address != _MAP_FAILED, f"{path} cannot be mapped")
    os.close(descriptor)
    signal.signal(signal.SIGUSR2, lambda number, frame: libc.munmap(address, _BYTES))


options = arguments(add)
need(os.access(options.path, os.R_OK | os.W_OK), f"no {options.path}")
if options.only_mapped:
    map_alone(options.path)
else:
    device = os.open(options.path, os.O_RDWR)
    if options.mapped:
        how = mmap.MAP_PRIVATE if options.path == "/dev/zero" else mmap.MAP_SHARED
        area = mmap.mmap(device, _BYTES, how)
run(lambda k: None, options)
