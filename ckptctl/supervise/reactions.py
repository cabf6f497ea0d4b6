"""What a signal or a notice makes of a run: which reaction to which, and the signals that have come in."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.interrupt import SignalInterrupt, Terminated


class Reaction(Enum):
    """What is done; ordered from the mildest to the most thorough."""

    IGNORE = "ignore"
    LEAVE = "leave"  # ckptctl ends, the job runs on
    PASS_ON = "pass"  # to the job, which knows what to do with it
    DUMP = "dump"
    STOP = "stop"
    DUMP_AND_STOP = "dump-and-stop"

    @property
    def ends_the_job(self) -> bool:
        return self in (Reaction.STOP, Reaction.DUMP_AND_STOP)

    @property
    def ends_the_supervision(self) -> bool:
        return self.ends_the_job or self is Reaction.LEAVE


DEFAULT: Final[Mapping[signal.Signals, Reaction]] = {
    signal.SIGTERM: Reaction.DUMP_AND_STOP,
    signal.SIGINT: Reaction.DUMP_AND_STOP,
    signal.SIGUSR1: Reaction.DUMP_AND_STOP,
    # A terminal that is closed, a connection that is lost: the job goes on without it.
    signal.SIGHUP: Reaction.IGNORE,
    signal.SIGQUIT: Reaction.PASS_ON,
    signal.SIGUSR2: Reaction.PASS_ON,
    signal.SIGWINCH: Reaction.PASS_ON,
}
# A job that was started by others: nothing of it changes because nobody looks after it any more.
WATCHED: Final[Mapping[signal.Signals, Reaction]] = {
    **DEFAULT,
    signal.SIGTERM: Reaction.LEAVE,
    signal.SIGINT: Reaction.LEAVE,
    signal.SIGUSR1: Reaction.DUMP,
    signal.SIGQUIT: Reaction.LEAVE,
    signal.SIGUSR2: Reaction.IGNORE,
    signal.SIGWINCH: Reaction.IGNORE,
}


def parse_reactions(
    texts: tuple[str, ...], default: Mapping[signal.Signals, Reaction] = DEFAULT
) -> Mapping[signal.Signals, Reaction]:
    """The reactions of `default`, changed by words such as `USR1=dump`, `SIGHUP=stop`. Raises UsageError."""
    reactions = dict(default)
    for text in texts:
        name, equals, word = text.partition("=")
        try:
            if not equals:
                raise ValueError
            number = signal.Signals["SIG" + name.strip().upper().removeprefix("SIG")]
            reaction = Reaction(word.strip().lower())
        except (KeyError, ValueError):
            raise UsageError(
                f"--on-signal {text!r} is no signal with a reaction.",
                hint=f"For example --on-signal USR1=dump; reactions are {', '.join(one.value for one in Reaction)}.",
            ) from None
        if number not in DEFAULT:
            raise UsageError(
                f"--on-signal {text}: {number.name} cannot be chosen.",
                hint=f"Those that can are {', '.join(one.name.removeprefix('SIG') for one in DEFAULT)}.",
            )
        reactions[number] = reaction
    return reactions


class AskedToStop:
    """An `interrupt.Interrupt` for the time before the job runs: a signal that would end the job stops its restore."""

    def __init__(self, signals: Signals, reactions: Mapping[signal.Signals, Reaction]) -> None:
        self._signals = signals
        self._reactions = reactions

    def check(self) -> None:
        """Raise Terminated if such a signal has come in."""
        for number in self._signals.received():
            if self._reactions[number].ends_the_supervision:
                raise Terminated(f"Stopped by {number.name}.", hint="Run the same command again.")


class Signals:
    """Collects signals while `installed`; none of them ends ckptctl, and none is lost."""

    def __init__(self) -> None:
        self._received: deque[signal.Signals] = deque()

    @contextmanager
    def installed(self, before: SignalInterrupt) -> Iterator[None]:
        """Catch the signals in this block (main thread only); afterwards the former handlers are back.

        One that `before` has caught until now counts too.
        """
        former = {number: signal.signal(number, self._note) for number in DEFAULT}
        if before.received is not None:
            self._received.appendleft(before.received)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def take(self) -> signal.Signals | None:
        """The oldest signal that has not been taken; None where there is none."""
        return self._received.popleft() if self._received else None

    def received(self) -> tuple[signal.Signals, ...]:
        """Those that have not been taken."""
        return tuple(self._received)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received.append(signal.Signals(number))
