"""A watch on a folder: a file written there must still be reported."""

import os
import select
import struct

from shape import arguments, check, libc, run

IN_CLOSE_WRITE = 0x8
options = arguments()
folder = f"{options.log}.watched"
os.mkdir(folder)
watcher = libc.inotify_init()
check(libc.inotify_add_watch(watcher, folder.encode(), IN_CLOSE_WRITE) > 0, "no watch")


def step(k: int) -> None:
    with open(f"{folder}/{k % 10}", "w") as file:
        file.write("x")
    check(select.select([watcher], [], [], 5)[0], "inotify says nothing")
    event = os.read(watcher, 4096)
    length = struct.unpack_from("I", event, 12)[0]
    check(event[16 : 16 + length].rstrip(b"\0") == b"%d" % (k % 10), "inotify names another file")


run(step, options)
