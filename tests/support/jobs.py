"""Jobs for tests: real programs that are surely gone when the test is over, dumped and restored or not."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.waiting import lines, wait_for

# A job is known by this variable in its environment: it is inherited, lives in the memory that CRIU saves, and so
# marks restored processes too, whatever their pids, sessions and namespaces.
MARK: Final = "CKPTCTL_TEST_JOB"


@dataclass(frozen=True, slots=True)
class Job:
    """A program that a test started as a session leader, with its output in files of `folder`."""

    pid: int
    folder: Path
    mark: str
    process: subprocess.Popen[bytes] = field(repr=False)
    _seen: set[int] = field(default_factory=set, repr=False)

    @property
    def stdout(self) -> Path:
        return self.folder / "stdout"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr"

    def lines(self) -> list[str]:
        """The complete lines of its standard output so far."""
        return lines(self.stdout)

    def wait_for_lines(self, count: int, timeout_s: float = 60) -> list[str]:
        """Its output lines once there are `count`; AssertionError where they do not come."""
        wait_for(lambda: len(self.lines()) >= count, timeout_s, f"{count} lines of {self}")
        self.processes()  # for wait_gone, which could not tell zombies of ours from others
        return self.lines()

    def __str__(self) -> str:
        errors = self.stderr.read_text(errors="replace")[-2000:]
        return f"job {self.pid} with {len(self.lines())} lines in {self.folder}, stderr {errors!r}"

    def wait_gone(self, timeout_s: float = 60) -> None:
        """Wait until no process of the job is left, restored ones included, nor a zombie of one seen before."""
        self.processes()
        wait_for(
            lambda: not self.processes() and not any(state(pid) == "Z" for pid in self._seen),
            timeout_s,
            f"the end of {self}",
        )

    def wait_status(self, timeout_s: float = 60) -> int:
        """The exit status of the program as it was started here (negative for a signal); not of a restored one."""
        return self.process.wait(timeout_s)

    def running(self) -> bool:
        """Whether some process of the job runs or sleeps: not stopped, not traced, not a zombie."""
        return any(state(pid) in "RSDI" for pid in self.processes())

    def processes(self) -> list[int]:
        """Every process that carries the job's mark, by pid as seen from here."""
        pids = marked(self.mark)
        self._seen.update(pids)
        return pids

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL every process of the job, stopped ones too, until none is left."""
        self.processes()
        kill_marked(self.mark)


class Jobs:
    """Starts jobs, each with a folder of its own below `root`, and ends what is left of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._jobs: list[Job] = []

    def __call__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        append: bool = False,
        reap: bool = True,
    ) -> Job:
        """Start `argv` by setsid with stdio to /dev/null and files (opened with O_APPEND where `append`).

        The working folder is the job's folder unless `cwd` is given. `reap=False` leaves a zombie when it ends,
        until `wait_status` is called.
        """
        mark = secrets.token_hex(8)
        folder = self._root / f"job-{len(self._jobs)}"
        folder.mkdir(parents=True)
        mode = "ab" if append else "wb"
        with (folder / "stdout").open(mode) as stdout, (folder / "stderr").open(mode) as stderr:
            process = subprocess.Popen(
                [os.fspath(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {}), MARK: mark},
                cwd=cwd or folder,
                start_new_session=True,
            )
        if reap:
            threading.Thread(target=process.wait, daemon=True).start()
        job = Job(process.pid, folder, mark, process)
        self._jobs.append(job)
        return job

    def close(self) -> None:
        """Kill what is left of every job."""
        for job in self._jobs:
            job.kill()
            job.wait_status(10)


def marked(mark: str) -> list[int]:
    """Every process whose environment has `mark` for the variable MARK, by pid as seen from here."""
    needle = f"{MARK}={mark}".encode()
    return [pid for pid in _all_pids() if needle in _environment(pid).split(b"\0")]


def kill_marked(mark: str) -> None:
    """SIGKILL every such process, stopped ones too, until none is left."""

    def none_left() -> bool:
        pids = marked(mark)
        for pid in pids:
            for number in (signal.SIGKILL, signal.SIGCONT):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        return not pids

    wait_for(none_left, 30, f"the death of the processes marked {mark}")


def python(code: str, *arguments: str) -> list[str]:
    """The command line of a Python program given as text."""
    return [sys.executable, "-c", code, *arguments]


def state(pid: int) -> str:
    """The state letter of a process as /proc/PID/stat has it (R, S, D, T, t, Z, X, I); X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    """The environment of a process; empty for zombies and for what is gone or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
