"""The jobs that are saved and restored: processes of holder.py."""

from __future__ import annotations

import array
import ctypes
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import COMPILED

CONTENTS = ("floats", "training", "frozen", "zeros")
_NEED_TORCH = frozenset({"training", "frozen"})
_HOLDER = Path(__file__).with_name("holder.py")
_POLL_S = 0.01
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Job:
    """A running holder.py; `log` is its standard output."""

    pid: int
    heartbeats: int  # an address in its memory
    log: Path

    def beats(self) -> array.array[int]:
        """The times (CLOCK_MONOTONIC, ns) at which it was running."""
        times = array.array("Q")
        with open(f"/proc/{self.pid}/mem", "rb") as file:
            file.seek(self.heartbeats)
            count = int.from_bytes(file.read(8), "little")
            times.frombytes(file.read(8 * count))
        return times

    def longest_pause_s(self, since_ns: int) -> float:
        """The longest time between two heartbeats of which the later one came after `since_ns`."""
        return max(later - earlier for earlier, later in itertools.pairwise(self.beats()) if later > since_ns) / 1e9

    def train(self) -> None:
        """Let it train ten steps."""
        before = self.log.read_text().count("trained\n")
        os.kill(self.pid, signal.SIGUSR1)
        wait(lambda: self.log.read_text().count("trained\n") > before)

    def wait_until_it_beats(self) -> None:
        """See that it runs, as one that was restored must."""
        before = len(self.beats())
        wait(lambda: len(self.beats()) > before)

    def end(self) -> None:
        """Kill and reap one that was restored."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextmanager
def holding(contents: str, size_bytes: int, folder: Path) -> Iterator[Job]:
    """A job with so much memory of some kind, killed at the end of the block."""
    output = folder / "holder.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", _HOLDER, contents, str(size_bytes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={name: value for name, value in os.environ.items() if name != COMPILED},
            start_new_session=True,
        )
    try:

        def ready() -> re.Match[str] | None:
            if process.poll() is not None:
                sys.exit(f"bench: the process to dump ended: {output.read_text()}")
            return re.search(r"^ready (\d+)\n", output.read_text())

        wait(lambda: ready() is not None)
        found = ready()
        assert found is not None
        yield Job(process.pid, int(found[1]), output)
    finally:
        process.kill()
        process.wait()


def reap_orphans() -> None:
    """Become the parent of what is restored: a zombie that nobody waits for would keep its pid."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def possible(contents: str) -> bool:
    """Whether there can be such a job here; says so where not."""
    if contents in _NEED_TORCH and importlib.util.find_spec("torch") is None:
        print(f"(no {contents}: that needs PyTorch, which is not installed)")
        return False
    return True


def wait(condition: Callable[[], bool]) -> None:
    """Wait for something that is sure to come."""
    while not condition():
        time.sleep(_POLL_S)
