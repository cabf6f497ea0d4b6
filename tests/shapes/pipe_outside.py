"""Standard output is a pipe whose reader is a process outside the tree, as `program | tee` leaves it.

A write to a pipe that nobody reads any more ends the shape, unless --careful. --read: a pipe that is read from.
"""

import argparse
import os

from shape import arguments, check, run, stranger


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--careful", action="store_true")
    parser.add_argument("--read", action="store_true")


options = arguments(add)
read, write = os.pipe()


def copy() -> None:
    os.close(write)
    with open(f"{options.log}.copy", "ab", buffering=0) as file:
        while data := os.read(read, 4096):
            file.write(data)


def feed() -> None:
    os.close(read)
    while True:
        os.write(write, b"x")


stranger(feed if options.read else copy, options.seconds)
os.close(write if options.read else read)


def step(k: int) -> None:
    try:
        if options.read:
            check(os.read(read, 1) == b"x", "the pipe gave nothing")
        else:
            os.write(write, b"%d\n" % k)
    except BrokenPipeError:
        check(options.careful, "nobody reads the pipe")


run(step, options)
