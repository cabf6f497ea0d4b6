"""An open file that has lost its name to another file, while a hard link to it remains elsewhere."""

import os

from shape import arguments, check, run

options = arguments()
path = f"{options.log}.name"
file = os.open(path, os.O_RDWR | os.O_CREAT)
os.link(path, f"{options.log}.elsewhere")
with open(f"{options.log}.new", "w") as new:
    new.write("new")
os.rename(f"{options.log}.new", path)


def step(k: int) -> None:
    os.pwrite(file, b"%8d" % k, 0)
    with open(f"{options.log}.elsewhere", "rb") as other:
        check(int(other.read(8)) == k, "the other name no longer leads to the same file")


run(step, options)
