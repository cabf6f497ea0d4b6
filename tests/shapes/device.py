"""An open device (--path), and with --mapped a mapping of it."""

import argparse
import mmap
import os

from shape import arguments, need, run


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", default="/dev/kmsg")
    parser.add_argument("--mapped", action="store_true")


options = arguments(add)
need(os.access(options.path, os.R_OK | os.W_OK), f"no {options.path}")
device = os.open(options.path, os.O_RDWR)
area = (
    mmap.mmap(device, 4096, mmap.MAP_PRIVATE if options.path == "/dev/zero" else mmap.MAP_SHARED)
    if options.mapped
    else None
)
run(lambda k: None, options)
