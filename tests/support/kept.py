"""Jobs under a keeper, as `ckptctl run` starts them, that are surely gone when the test is over."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptctl.process.identity import ProcessId
from ckptctl.store.layout import RunFolder
from ckptctl.supervise.exits import JobExit, read_exit
from ckptctl.supervise.launch import Launch, Launched, start
from support.jobs import MARK, kill_marked, marked, state
from support.waiting import lines, wait_for


@dataclass(frozen=True, slots=True)
class Kept:
    """A job that was started under a keeper."""

    launched: Launched
    run: RunFolder
    mark: str

    @property
    def keeper(self) -> int:
        return self.launched.keeper.pid

    @property
    def job(self) -> int:
        return self.launched.job_pid

    def lines(self) -> list[str]:
        """The complete lines of its standard output so far."""
        return lines(self.run.stdout)

    def wait_for_lines(self, count: int, timeout_s: float = 60) -> list[str]:
        """Its output lines once there are `count`."""
        wait_for(lambda: len(self.lines()) >= count, timeout_s, f"{count} lines, stderr {self.errors()}")
        return self.lines()

    def errors(self) -> str:
        """What it wrote to its standard error."""
        return self.run.stderr.read_text(errors="replace")

    def processes(self) -> list[int]:
        """Every process of it, keeper included, by pid as seen from here."""
        return marked(self.mark)

    def kill(self) -> None:
        """SIGKILL all of it, and reap what is a child of ours."""
        kill_marked(self.mark)
        self.launched.watch.wait(10)
        wait_for(lambda: state(self.keeper) == "X" and state(self.job) == "X", 20, "free pids")

    def wait_exit(self, timeout_s: float = 60) -> JobExit:
        """How the job ended, when it has."""
        return wait_for(lambda: read_exit(self.run.job_exit), timeout_s, f"the end of the job, stderr {self.errors()}")


class KeptJobs:
    """Starts jobs under keepers in the run folder `run`, and ends what is left of them."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._kept: list[Kept] = []
        self._marks: list[str] = []

    def __call__(
        self,
        *command: str | os.PathLike[str],
        environment: Mapping[str, str] | None = None,
        on_keeper: Callable[[ProcessId], None] = lambda keeper: None,
        **choices: Any,
    ) -> Kept:
        """Start `command`; `choices` are those of Launch. The variables are added to ours."""
        mark = secrets.token_hex(8)
        self._marks.append(mark)
        variables = {**os.environ, **(environment or {}), MARK: mark}
        words = tuple(os.fspath(word) for word in command)
        choices.setdefault("cwd", self.run.path)
        launch = Launch(command=words, run=self.run, environment=variables, **choices)
        kept = Kept(start(launch, on_keeper), self.run, mark)
        self._kept.append(kept)
        return kept

    def close(self) -> None:
        """Kill what is left of every job."""
        for mark in self._marks:
            kill_marked(mark)
        for kept in self._kept:
            with suppress(ValueError):
                kept.launched.watch.wait(10)
            kept.launched.watch.close()


def status_field(pid: int, name: str) -> str:
    """A field of /proc/PID/status, `Seccomp` say."""
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(status_field(pid, "PPid"))
