"""A working folder that was removed."""

import os

from shape import arguments, check, run

options = arguments()
options.log = os.path.abspath(options.log)
folder = f"{options.log}.cwd"
os.mkdir(folder)
os.chdir(folder)
os.rmdir(folder)


def step(k: int) -> None:
    check(os.readlink("/proc/self/cwd") == f"{folder} (deleted)", "the working folder is another")


run(step, options)
