"""An open file whose name is gone while another hard link to it remains, and one whose folder was removed too."""

import os

from shape import arguments, check, run

options = arguments()
path = f"{options.log}.first"
file = os.open(path, os.O_RDWR | os.O_CREAT)
os.link(path, f"{options.log}.second")
os.unlink(path)
folder = f"{options.log}.folder"
os.mkdir(folder)
inside = os.open(f"{folder}/file", os.O_RDWR | os.O_CREAT)
os.unlink(f"{folder}/file")
os.rmdir(folder)


def step(k: int) -> None:
    for descriptor in (file, inside):
        os.pwrite(descriptor, b"%8d" % k, 0)
        check(int(os.pread(descriptor, 8, 0)) == k, "the file lost what was written")
    with open(f"{options.log}.second", "rb") as other:
        check(int(other.read(8)) == k, "the other name no longer leads to the same file")


run(step, options)
