"""Memory shared with a child in three ways: anonymous, a memfd, and a deleted file of /dev/shm as torch makes them."""

import mmap
import os

from shape import answer, arguments, ask, check, child, read_exactly, run

SIZE = 4 << 20
options = arguments()
anonymous = mmap.mmap(-1, SIZE)
memfd = os.memfd_create("torch_shared")
os.ftruncate(memfd, SIZE)
name = f"/dev/shm/torch_{os.getpid()}"
tensor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.ftruncate(tensor, SIZE)
areas = [anonymous, mmap.mmap(memfd, SIZE), mmap.mmap(tensor, SIZE)]
os.unlink(name)
ask_read, ask_write = os.pipe()
answer_read, answer_write = os.pipe()


def partner() -> None:
    os.close(ask_write)
    os.close(answer_read)
    while True:
        k = int.from_bytes(read_exactly(ask_read, 8), "big")
        for area in areas:
            area[SIZE - 8 :] = answer(k)
        os.write(answer_write, answer(k))


child(partner)
os.close(ask_read)
os.close(answer_write)


def step(k: int) -> None:
    ask(k, ask_write, answer_read)
    for number, area in enumerate(areas):
        check(area[SIZE - 8 :] == answer(k), f"shared memory {number} is not shared")


run(step, options)
