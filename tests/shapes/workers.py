"""Python's multiprocessing: two workers, a semaphore, a lock, a queue and shared memory with a name."""

import hashlib
import multiprocessing
import os
from multiprocessing import shared_memory
from typing import Any

from shape import arguments, check, die_with_parent, run

WORKERS = 2


def work(number: int, go: Any, done: Any, lock: Any, results: Any, name: str) -> None:
    die_with_parent()
    memory = shared_memory.SharedMemory(name)
    while True:
        go.acquire()
        with lock:
            memory.buf[number] = (memory.buf[number] + 1) % 256
        results.put(number)
        done.release()


options = arguments()
context = multiprocessing.get_context("fork")
# Whoever starts the shape removes this in the end, since a killed process cannot.
name = "shape_" + hashlib.sha256(os.path.abspath(options.log).encode()).hexdigest()[:16]
memory = shared_memory.SharedMemory(name, create=True, size=1 << 20)
memory.buf[:WORKERS] = bytes(WORKERS)
lock, results = context.Lock(), context.Queue()
gates = [(context.Semaphore(0), context.Semaphore(0)) for _ in range(WORKERS)]
for number, (go, done) in enumerate(gates):
    context.Process(target=work, args=(number, go, done, lock, results, memory.name), daemon=True).start()


def step(k: int) -> None:
    for go, _ in gates:
        go.release()
    for _, done in gates:
        check(done.acquire(timeout=20), "a worker does not answer")
    check(sorted(results.get(timeout=20) for _ in gates) == list(range(WORKERS)), "the queue lost a result")
    with lock:
        check(bytes(memory.buf[:WORKERS]) == bytes([k % 256] * WORKERS), "shared memory differs")


run(step, options)
