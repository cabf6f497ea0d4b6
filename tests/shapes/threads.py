"""A pool of threads, all of which are there and work at every step."""

import threading
from concurrent.futures import ThreadPoolExecutor

from shape import answer, arguments, check, run

THREADS = 16
options = arguments(lambda parser: parser.add_argument("--threads", type=int, default=THREADS))
pool = ThreadPoolExecutor(options.threads)
together = threading.Barrier(options.threads)


def work(k: int) -> bytes:
    together.wait(20)
    return answer(k)


def step(k: int) -> None:
    got = list(pool.map(work, range(k, k + options.threads)))
    check(got == [answer(number) for number in range(k, k + options.threads)], "a thread computed wrongly")


step(0)
run(step, options)
