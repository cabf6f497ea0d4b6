"""The shapes of tests/shapes: starting them and judging their logs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.jobs import Job, Jobs
from support.waiting import lines, wait_for

FOLDER: Final = Path(__file__).parents[1] / "shapes"
_UNAVAILABLE: Final = 77


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that runs: its job, the log by which it is judged, and the root of its tree."""

    job: Job
    log: Path
    pid: int

    def lines(self) -> list[str]:
        """The complete lines of the log."""
        return lines(self.log)

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until the shape is set up; AssertionError with what it said where it ends before.

        Skips the test where the kernel lacks what the shape is about.
        """
        wait_for(
            lambda: self.lines() or self.job.process.returncode is not None,
            timeout_s,
            f"`ready` of {self.job}",
        )
        if self.job.process.returncode == _UNAVAILABLE:
            pytest.skip(f"this kernel does not let {self.job} be")
        assert self.lines()[:1] == ["ready"], f"{self.job} ended before it was ready"

    def wait_steps(self, count: int, timeout_s: float = 60) -> int:
        """Wait until the log shows `count` steps, all of them right, and return how many there are."""
        wait_for(lambda: len(self.lines()) > count or "BROKEN" in self.log.read_text(), timeout_s, f"step {count}")
        return self.steps()

    def steps(self) -> int:
        """The steps so far; AssertionError where one is missing, wrong or BROKEN."""
        return judge(self.lines())


def judge(log_lines: list[str]) -> int:
    """The number of steps in a log of a shape; AssertionError for the first line that is not as it must be."""
    assert log_lines[:1] == ["ready"], f"the log begins with {log_lines[:1]}"
    value = b""
    steps = log_lines[1:]
    if steps[-1:] == ["done"]:
        steps = steps[:-1]
    for k, line in enumerate(steps, 1):
        value = hashlib.sha256(value + str(k).encode()).digest()
        assert line == f"{k} {value.hex()[:16]}", f"line {k} of the log is {line!r}"
    return len(steps)


@contextmanager
def started(jobs: Jobs, name: str, *words: str, seconds: float = 60, prefix: Sequence[str] = ()) -> Iterator[Shape]:
    """Start a shape by its name, wait until it is ready, and remove what it left in /dev/shm afterwards.

    `prefix` is a command that runs the shape in its own place (`unshare --ipc`).
    """
    job = jobs([*prefix, sys.executable, FOLDER / f"{name}.py", "log", "--seconds", str(seconds), *words])
    shape = Shape(job, job.folder / "log", job.pid)
    try:
        shape.wait_ready()
        yield shape
    finally:
        # A shape whose first thread has ended shows no environment, by which jobs find their processes.
        with suppress(ProcessLookupError):
            job.process.kill()
        job.kill()
        _remove_shared_memory(shape.log)


def _remove_shared_memory(log: Path) -> None:
    name = "shape_" + hashlib.sha256(str(log.absolute()).encode()).hexdigest()[:16]
    (Path("/dev/shm") / name).unlink(missing_ok=True)
