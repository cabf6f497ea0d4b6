"""A pool of threads, each of which works at every step."""

from concurrent.futures import ThreadPoolExecutor

from shape import answer, arguments, check, run

THREADS = 16
options = arguments(lambda parser: parser.add_argument("--threads", type=int, default=THREADS))
pool = ThreadPoolExecutor(options.threads)


def step(k: int) -> None:
    got = list(pool.map(answer, range(k, k + options.threads)))
    check(got == [answer(number) for number in range(k, k + options.threads)], "a thread computed wrongly")


step(0)
run(step, options)
