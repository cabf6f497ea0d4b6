"""Commands of the user that run before and after a snapshot, and when one has failed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl.command import CommandMissing, describe_status
from ckptctl.files import PRIVATE_FILE
from ckptctl.supervise.limited import Ended, Ending, never, run_logged

DEFAULT_TIMEOUT_S: Final = 60.0


class HookEvent(Enum):
    """When a hook runs; its value is $CKPTCTL_EVENT."""

    BEFORE = "before"
    AFTER = "after"
    FAILURE = "failure"


class HookOutcome(Enum):
    """What became of a hook."""

    NOT_SET = "not-set"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    GIVEN_UP = "given-up"
    """Something more urgent came in between."""


@dataclass(frozen=True, slots=True)
class HookCommands:
    """The words of each hook, () for none: they run as they are, without a shell."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()

    def words(self, event: HookEvent) -> tuple[str, ...]:
        return {HookEvent.BEFORE: self.before, HookEvent.AFTER: self.after, HookEvent.FAILURE: self.failure}[event]


@dataclass(frozen=True, slots=True)
class HookFacts:
    """What a hook is told in its environment; what is not known is not set there."""

    run: str
    pid: int | None = None
    reason: str | None = None
    """Why the snapshot is taken: its trigger, in a word."""
    snapshot: Path | None = None
    snapshot_id: str | None = None
    step: int | None = None
    error_code: str | None = None
    error: str | None = None
    last: bool = False
    """The snapshot is the last before the machine goes: no hook may prevent it."""

    def environment(self, event: HookEvent) -> dict[str, str]:
        """The variables for a hook."""
        facts = {
            "CKPTCTL_EVENT": event.value,
            "CKPTCTL_RUN": self.run,
            "CKPTCTL_PID": self.pid,
            "CKPTCTL_REASON": self.reason,
            "CKPTCTL_SNAPSHOT": self.snapshot,
            "CKPTCTL_ID": self.snapshot_id,
            "CKPTCTL_STEP": self.step,
            "CKPTCTL_ERROR_CODE": self.error_code,
            "CKPTCTL_ERROR": self.error,
            "CKPTCTL_LAST": 1 if self.last else None,
        }
        return {name: str(value) for name, value in facts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class HookResult:
    """`words` tell what went wrong, and are empty where nothing did."""

    event: HookEvent
    outcome: HookOutcome
    words: str = ""
    seconds: float = 0.0
    prevents_snapshot: bool = False

    @property
    def ok(self) -> bool:
        return self.outcome in (HookOutcome.NOT_SET, HookOutcome.DONE)


class Hooks:
    """Runs the hooks of one run, one after the other; their output is appended to `log` (0600)."""

    def __init__(self, commands: HookCommands, *, log: Path, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._commands = commands
        self._log = log
        self._timeout_s = timeout_s

    def run(
        self,
        event: HookEvent,
        facts: HookFacts,
        *,
        limit_s: float | None = None,
        give_up: Callable[[], bool] = never,
    ) -> HookResult:
        """Run the hook of this event to its end; a hook never raises.

        After the time limit (`limit_s`, where that is shorter), or when `give_up` says so, its process group is ended.
        Where the hook before a snapshot has failed, there should be none, unless it is the last.
        """
        words = self._commands.words(event)
        if not words:
            return HookResult(event, HookOutcome.NOT_SET)
        time_s = self._timeout_s if limit_s is None else min(limit_s, self._timeout_s)
        try:
            self._head(event, words)
            environment = facts.environment(event)
            ended = run_logged(words, output=self._log, environment=environment, limit_s=time_s, give_up=give_up)
        except (CommandMissing, OSError, ValueError) as error:  # ValueError: a NUL, which no environment can hold
            outcome, said, seconds = HookOutcome.FAILED, f"cannot be run: {error}", 0.0
        else:
            outcome, said, seconds = *_outcome(ended, time_s), ended.seconds
        if outcome is HookOutcome.DONE:
            return HookResult(event, outcome, seconds=seconds)
        prevents = event is HookEvent.BEFORE and not facts.last
        return HookResult(event, outcome, f"The hook {words[0]} ({event.value}) {said}", seconds, prevents)

    def _head(self, event: HookEvent, words: tuple[str, ...]) -> None:
        descriptor = os.open(
            self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE
        )
        with open(descriptor, "w", errors="backslashreplace") as log:
            log.write(f"== {event.value}: {shlex.join(words)}\n")


def _outcome(ended: Ended, limit_s: float) -> tuple[HookOutcome, str]:
    if ended.ending is Ending.TOO_LONG:
        return HookOutcome.TIMED_OUT, f"did not end within {limit_s:g} s, and was ended."
    if ended.ending is Ending.GIVEN_UP:
        return HookOutcome.GIVEN_UP, "was ended, because something more urgent came."
    if ended.status != 0:
        return HookOutcome.FAILED, f"failed with {describe_status(ended.status)}."
    return HookOutcome.DONE, ""
