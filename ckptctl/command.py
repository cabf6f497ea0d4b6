"""The only place that runs other programs: stdin, locale, process group and the form of an error."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ckptctl.errors import CkptctlError

_TAIL_LINES: Final = 20
# Output that we parse must not depend on the user's language; PATH is widened because cron's lacks sbin.
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

_RUN_MODULE: Final = """
import runpy, sys
_, root, *sys.argv = sys.argv
sys.path.append(root)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class CommandMissing(CkptctlError):
    """A program that is needed is not installed."""

    code = "E_COMMAND_MISSING"


class CommandFailed(CkptctlError):
    """A program ran and did not succeed."""

    code = "E_COMMAND_FAILED"


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended; `status` is negative for a signal, as in the subprocess module."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def command_line(self) -> str:
        """The command in a form that can be pasted into a shell."""
        return shlex.join(self.argv)

    @property
    def ending(self) -> str:
        """`exit status 3` or `signal SIGKILL`."""
        return describe_status(self.status)


class Child:
    """A program that is running, in a session of its own so that the terminal's Ctrl-C does not reach it.

    Nothing here kills it: who started it knows whether that is safe.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, on_tick: Callable[[], None] | None = None, tick_s: float = 0.05) -> int:
        """Wait for the end and return the status; call `on_tick` about every `tick_s` seconds meanwhile.

        An exception from `on_tick` passes through while the program goes on: call `wait` again afterwards.
        """
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        while not poller.poll(tick_s * 1000 if on_tick else None):
            if on_tick is not None:
                on_tick()
        return self._process.wait()

    def poll(self, wait_s: float = 0.0) -> int | None:
        """The status if it has ended, or does within `wait_s` seconds; None else."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return self._process.wait() if poller.poll(wait_s * 1000) else None

    def close(self) -> None:
        """Release the handle; the program, if it still runs, is left alone."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float,
    ok: frozenset[int] | None = frozenset({0}),
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and return what it said.

    `ok` are the statuses that count as success, None for all. Only for programs that may be killed at any moment:
    that is what happens after `timeout_s` seconds.
    Raises CommandMissing, and CommandFailed for another status or a timeout.
    """
    words = tuple(os.fspath(word) for word in argv)
    began = time.monotonic()
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=child_environment(environment),
            check=False,
        )
    except FileNotFoundError as error:
        raise _missing(words[0]) from error
    except PermissionError as error:
        raise CommandMissing(f"{words[0]} may not be run: {error.strerror}.", hint="Check its permissions.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(
            f"{Path(words[0]).name} did not end within {timeout_s:g} s.",
            details={"command": shlex.join(words)},
            hint="Run the command by hand to see what it waits for.",
        ) from error
    completed = Completed(words, done.returncode, done.stdout, done.stderr, time.monotonic() - began)
    if ok is not None and completed.status not in ok:
        raise command_failed(completed)
    return completed


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    output: Path | None,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    own_session: bool = True,
    cwd: Path | None = None,
) -> Child:
    """Start a long-running program whose stdout and stderr go to the file `output` (0600, appended), or to ours.

    SIGXFSZ stays ignored in it, so that lowering its RLIMIT_FSIZE makes its writes fail instead of killing it.
    Raises CommandMissing.
    """
    words = tuple(os.fspath(word) for word in argv)
    log = None if output is None else _open_log(output)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(environment),
            pass_fds=tuple(pass_fds),
            start_new_session=own_session,
            restore_signals=False,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise _missing(words[0]) from error
    finally:
        if log is not None:
            os.close(log)
    return Child(process)


def start_unattached(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdout: int,
    stderr: int,
    environment: Mapping[str, str],
    pass_fds: Sequence[int],
    cwd: Path,
) -> Child:
    """Start a program that is to outlive us, in a session of its own, with exactly this environment.

    Nothing of ours reaches it but the descriptors that are named. Raises CommandMissing, and OSError where `cwd`
    cannot be entered.
    """
    words = tuple(os.fspath(word) for word in argv)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        if error.filename == words[0]:
            raise _missing(words[0]) from error
        raise
    return Child(process)


def start_captured(
    argv: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> tuple[Child, BinaryIO]:
    """Start a program in a session of its own whose stdout and stderr go to a file without a name, to be read later.

    Nothing is left behind on the disk, whichever of the two sides is killed. Raises CommandMissing.
    """
    import tempfile  # a millisecond or two, for GPUs alone

    descriptor, name = tempfile.mkstemp(prefix="ckptctl-")
    said = os.fdopen(descriptor, "rb")
    try:
        return start(argv, output=Path(name), environment=environment, pass_fds=pass_fds), said
    except BaseException:
        said.close()
        raise
    finally:
        Path(name).unlink()


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs a module of ckptctl in a Python of its own, with the packages that we see.

    The working folder is not searched, and the folder that ckptctl was found in comes last, so that nothing in it
    can take the place of a module of the standard library.
    """
    return (sys.executable, "-P", "-c", _RUN_MODULE, str(Path(__file__).parent.parent), module, *arguments)


def command_failed(completed: Completed) -> CommandFailed:
    """The error for a program that ended badly, with the end of what it said."""
    said = (completed.stderr or completed.stdout).strip().splitlines()
    summary = f": {said[-1]}" if said else ""
    return CommandFailed(
        f"{Path(completed.argv[0]).name} failed with {completed.ending}{summary}",
        details={"command": completed.command_line, "output": said[-_TAIL_LINES:], "seconds": completed.seconds},
    )


def describe_status(status: int) -> str:
    """`exit status 3` or `signal SIGKILL`, for a status as the subprocess module gives it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every program that we start: ours, in plain English, with the sbin folders on PATH."""
    environment = {**os.environ, **_ENVIRONMENT, **(extra or {})}
    path = environment.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":")
    environment["PATH"] = ":".join([*path, *(folder for folder in _SBIN if folder not in path)])
    return environment


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _missing(program: str) -> CommandMissing:
    return CommandMissing(f"The program {program} is not installed.", hint=f"Install {Path(program).name}.")
