"""How a job ended, as its keeper wrote it down, and waiting for the keeper to end."""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ckptctl import command, files
from ckptctl.process.identity import NoSuchProcess, ProcessId, exists

_VERSION: Final = 1
# What a keeper writes fits a few times over; whatever is longer was not written by one.
_MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class JobExit:
    """The end of a job: `status` is negative for a signal, as in the subprocess module.

    `began_s` is when it was first started, restores or not, `ended_s` when it ended (Unix time); `pid` is that in its
    own PID namespace.
    """

    pid: int
    status: int
    began_s: float
    ended_s: float


def read_exit(path: Path) -> JobExit | None:
    """What the keeper wrote to `path`; None where it wrote nothing, or what is there is nothing that it wrote.

    Raises FileTrouble where the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be read") from error
    with suppress(ValueError, KeyError, TypeError):
        return _from_json(json.loads(data))
    return None


class Watch:
    """A keeper that runs: waiting for its end, be it our child or not. It is left alone when the watch is closed.

    `fileno` becomes readable at the end, for select(2). `keeper_status` is how the keeper itself ended, None while it
    runs and where it was no child of ours: that is how the job ended too, unless the keeper was killed.
    """

    def __init__(self, keeper: ProcessId, exit_file: Path, child: command.Child | None = None) -> None:
        """Raises NoSuchProcess where the keeper is gone. `child`: what started it, where that was this process."""
        self.keeper = keeper
        self.keeper_status: int | None = None
        self._exit_file = exit_file
        self._child = child
        try:
            self._pidfd = os.pidfd_open(keeper.pid)
        except ProcessLookupError:
            raise _gone(keeper) from None
        if not exists(keeper):
            self.close()
            raise _gone(keeper)

    def fileno(self) -> int:
        """A descriptor that is readable when the keeper has ended."""
        return self._pidfd

    def wait(self, timeout_s: float) -> bool:
        """Whether the keeper ends, or has ended, within that time; a child of ours is reaped then.

        The job, and all that it left behind, has ended by then, unless the keeper was killed.
        """
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if not poller.poll(max(timeout_s, 0.0) * 1000):
            return False
        if self._child is not None:
            self.keeper_status = self._child.wait()
        elif self.keeper_status is None:
            # One that this process has restored is its child, though it did not start it.
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.keeper.pid, os.WNOHANG)
                if pid:  # else a tracer has not let go of it yet
                    self.keeper_status = os.waitstatus_to_exitcode(status)
        return True

    def job_exit(self) -> JobExit | None:
        """How the job ended; None while it runs, and where the keeper was killed and could not say.

        It is there some seconds before the keeper ends where the job has left processes behind. Raises FileTrouble.
        """
        return read_exit(self._exit_file)

    def close(self) -> None:
        """Release the handles."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None:
            self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _from_json(raw: Any) -> JobExit | None:
    if raw["version"] != _VERSION:
        return None
    number = raw["signal"]
    status = int(raw["code"]) if number is None else -signal.Signals(number)
    return JobExit(int(raw["pid"]), status, float(raw["began"]), float(raw["ended"]))


def _gone(keeper: ProcessId) -> NoSuchProcess:
    return NoSuchProcess(
        f"The keeper of the job, process {keeper.pid}, is gone.", hint="Start or restore the job again."
    )
