"""A flock through a descriptor that a process outside the tree holds too, as `flock FILE COMMAND` leaves it."""

import fcntl
import time

from shape import arguments, check, run, stranger

options = arguments()
held = open(f"{options.log}.lock", "w")
fcntl.flock(held, fcntl.LOCK_EX)
stranger(lambda: time.sleep(options.seconds), options.seconds)


def step(k: int) -> None:
    with open(f"{options.log}.lock") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    check(False, "the lock was given away")


run(step, options)
