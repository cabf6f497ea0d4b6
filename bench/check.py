"""What `ckptctl check` and `ckptctl ps` cost: medians, and where the time of their imports goes.

usage: check.py [--rounds 5] [--processes 20] [--threads 500] [--idle 1000]

`check --pid` looks at a tree of so many processes and threads, `ps` at a machine with so many idle processes more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from programs import as_installed
from startup import imports

_CKPTCTL = str(Path(sys.executable).with_name("ckptctl"))
# Children of one process, each with its share of the threads; the root says when all of them are there.
_TREE = """
import os, sys, threading, time
processes, threads = int(sys.argv[1]), int(sys.argv[2])
read, write = os.pipe()
for number in range(1, processes):
    if os.fork() == 0:
        os.close(read)
        break
else:
    number = 0
    os.close(write)
for _ in range((threads + number) // processes - 1):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
if number:
    os.write(write, b".")
    os.close(write)
    time.sleep(3600)
while os.read(read, processes):
    pass
print("ready", flush=True)
time.sleep(3600)
"""


@contextmanager
def tree(processes: int, threads: int) -> Iterator[int]:
    """A tree that waits; gives the pid of its root."""
    root = subprocess.Popen(
        [sys.executable, "-c", _TREE, str(processes), str(threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert root.stdout is not None and root.stdout.readline() == b"ready\n"
        yield root.pid
    finally:
        os.killpg(root.pid, 9)
        root.wait()


@contextmanager
def idle(count: int) -> Iterator[None]:
    """So many processes more on the machine."""
    sleepers = [subprocess.Popen(["sleep", "3600"], stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for one in sleepers:
            one.kill()
        for one in sleepers:
            one.wait()


def measure(argv: Sequence[str], environment: Mapping[str, str], rounds: int) -> None:
    """Print the median and the slowest imports of a command; whatever it finds, status 0 or 5, is an answer."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
        took.append(time.perf_counter() - began)
        if done.returncode not in (0, 5):
            sys.exit(f"{' '.join(argv)}: status {done.returncode}\n{done.stderr.decode()}")
    modules = imports(argv, environment, statuses=(0, 5))
    slowest = sorted(modules.items(), key=lambda item: -item[1])[:4]
    named = ", ".join(f"{module} {microseconds / 1000:.0f}" for module, microseconds in slowest)
    print(f"{' '.join(argv[1:]):28}{statistics.median(took):8.2f} s  {len(modules):4} modules; ms: {named}")


def main() -> int:
    """Measure and print: times differ from machine to machine, so that none of them is a failure."""
    parser = argparse.ArgumentParser(description="what check and ps cost")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=500)
    parser.add_argument("--idle", type=int, default=1000)
    wanted = parser.parse_args()
    print(f"\nMedian of {wanted.rounds} runs, and the slowest imports with what they import\n")
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-") as store:
        environment = as_installed(Path(store))
        measure((_CKPTCTL, "check"), environment, wanted.rounds)
        with tree(wanted.processes, wanted.threads) as pid:
            print(f"a tree of {wanted.processes} processes and {wanted.threads} threads:")
            measure((_CKPTCTL, "check", "--pid", str(pid)), environment, wanted.rounds)
        with idle(wanted.idle):
            print(f"{wanted.idle} processes more:")
            measure((_CKPTCTL, "ps"), environment, wanted.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
