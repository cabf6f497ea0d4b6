"""A check of the machine: what it protects, what it makes of the facts, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from ckptctl.preflight.check import Problem
from ckptctl.preflight.described import Described
from ckptctl.preflight.finding import Finding, Level
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.unknown import Unknown

T = TypeVar("T")
U = TypeVar("U")
Judgement = Callable[[Facts], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class MachineCheck(Described):
    """`judge` gives one thing or several to say, of any level; `remedy` goes with the warnings and errors among them
    that bring none of their own.
    """

    judge: Judgement = field(repr=False)

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """What the check says of these facts, at least one finding."""
        for said in self.judge(facts):
            amiss = said.level in (Level.WARNING, Level.ERROR)
            remedy = (said.remedy or self.remedy) if amiss else None
            yield Finding(self.name, self.group, said.level, said.summary, remedy, said.data)


def about(pick: Callable[[Facts], T | Unknown], examine: Callable[[T], Iterable[Problem]]) -> Judgement:
    """A judgement of one fact; without it the check is skipped, with the reason."""

    def judge(facts: Facts) -> Iterator[Problem]:
        found = pick(facts)
        if isinstance(found, Unknown):
            yield Problem(Level.SKIPPED, found.reason)
        else:
            yield from examine(found)

    return judge


def about_both(
    first: Callable[[Facts], T | Unknown],
    second: Callable[[Facts], U | Unknown],
    examine: Callable[[T, U], Iterable[Problem]],
) -> Judgement:
    """A judgement of two facts; without either of them the check is skipped, with the reason."""

    def judge(facts: Facts) -> Iterator[Problem]:
        one, other = first(facts), second(facts)
        if isinstance(one, Unknown):
            yield Problem(Level.SKIPPED, one.reason)
        elif isinstance(other, Unknown):
            yield Problem(Level.SKIPPED, other.reason)
        else:
            yield from examine(one, other)

    return judge


def ok(summary: str, /, **data: object) -> Problem:
    """All is well; `data` are facts for machines."""
    return Problem(Level.OK, summary, _data(data))


def warning(summary: str, remedy: str | None = None, /, **data: object) -> Problem:
    """Something that may spoil a dump or a restore, or that only some jobs meet."""
    return Problem(Level.WARNING, summary, _data(data), remedy)


def error(summary: str, remedy: str | None = None, /, **data: object) -> Problem:
    """Something with which no dump or no restore can succeed here."""
    return Problem(Level.ERROR, summary, _data(data), remedy)


def skipped(reason: str) -> Problem:
    """Nothing could be judged, or there is nothing to judge."""
    return Problem(Level.SKIPPED, reason)


def _data(data: dict[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in data.items() if value is not None)
