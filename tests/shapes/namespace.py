"""A process, or a child of one (--child), in a namespace of its own (--kind)."""

import argparse
import os

from shape import arguments, ask, child, libc, need, run, serve

KINDS = {
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "net": 0x40000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "user": 0x10000000,
    "cgroup": 0x02000000,
    "time": 0x00000080,
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, default="uts")
    parser.add_argument("--child", action="store_true")


options = arguments(add)


def part() -> None:
    need(libc.unshare(KINDS[options.kind]) == 0, "no namespace")


ask_read, ask_write = os.pipe()
answer_read, answer_write = os.pipe()
later = options.kind in ("pid", "time")


def partner() -> None:
    os.close(ask_write)
    os.close(answer_read)
    if options.child and not later:
        part()
    serve(ask_read, answer_write)


if not options.child or later:
    part()
child(partner)
os.close(ask_read)
os.close(answer_write)
run(lambda k: ask(k, ask_write, answer_read), options)
