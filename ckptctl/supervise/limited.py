"""Runs a user's command that may take its time but not for ever: on a limit its whole process group is ended."""

from __future__ import annotations

import os
import select
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.errors import UsageError

# How long a command that was asked to end (SIGTERM) may take before it is killed.
_GRACE_S: Final = 2.0
# How long the end of a killed one is waited for.
_KILLED_S: Final = 1.0
_MOST_BYTES: Final = 4096


class Ending(Enum):
    """How a command came to its end."""

    BY_ITSELF = "by itself"
    TOO_LONG = "too long"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Ended:
    """`status` is negative for a signal, as in the subprocess module; SIGKILL too for one that would not even die."""

    ending: Ending
    status: int
    seconds: float


class _Over(Exception):
    def __init__(self, ending: Ending) -> None:
        self.ending = ending


def never() -> bool:
    """Nothing is in a hurry."""
    return False


def split_words(option: str, line: str) -> tuple[str, ...]:
    """The words of a command line as a shell would split it; no shell runs them. Raises UsageError."""
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"{option}: {line!r} cannot be split into words: {error}.", hint="Check its quotes.") from None
    if not words:
        raise UsageError(f"{option} names no command.", hint="Write a program and its arguments.")
    return words


def run_logged(
    words: Sequence[str],
    *,
    output: Path,
    environment: Mapping[str, str],
    limit_s: float,
    give_up: Callable[[], bool] = never,
) -> Ended:
    """Run a command whose output is appended to `output`; end it after `limit_s` or when `give_up` says so.

    Raises command.CommandMissing, and OSError where the output cannot be opened.
    """
    child = command.start(words, output=output, environment=environment)
    return _wait(child, limit_s, give_up, grace_s=_GRACE_S)


def run_captured(
    words: Sequence[str],
    *,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    give_up: Callable[[], bool] = never,
) -> tuple[Ended, bytes]:
    """Run a command that may be killed at any moment, and return the beginning of what it said too.

    Raises command.CommandMissing and OSError.
    """
    child, said = command.start_captured(words, environment=environment)
    with said:
        ended = _wait(child, limit_s, give_up, grace_s=0)
        said.seek(0)
        return ended, said.read(_MOST_BYTES)


def _wait(child: command.Child, limit_s: float, give_up: Callable[[], bool], grace_s: float) -> Ended:
    began_s = time.monotonic()

    def look() -> None:
        if give_up():
            raise _Over(Ending.GIVEN_UP)
        if time.monotonic() - began_s > limit_s:
            raise _Over(Ending.TOO_LONG)

    ending = Ending.BY_ITSELF
    try:
        status = child.wait(look)
    except _Over as over:
        ending = over.ending
        status = _end_group(child, grace_s)
    finally:
        child.close()
    return Ended(ending, status, time.monotonic() - began_s)


def _end_group(child: command.Child, grace_s: float) -> int:
    # Until the leader is waited for, its number means this group and no other; so it is waited for last.
    leader = os.pidfd_open(child.pid)
    try:
        if grace_s:
            _signal_group(child, signal.SIGTERM)
            _await_end(leader, grace_s)
        _signal_group(child, signal.SIGKILL)
        # What hangs in a file system, or has become another user, stays: the run must not hang with it.
        return child.wait() if _await_end(leader, _KILLED_S) else -signal.SIGKILL
    finally:
        os.close(leader)


def _signal_group(child: command.Child, number: signal.Signals) -> None:
    with suppress(PermissionError):
        os.killpg(child.pid, number)


def _await_end(process: int, time_s: float) -> bool:
    """Whether a process, given as a pidfd, ends in this time."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(time_s * 1000))
