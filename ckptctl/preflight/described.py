"""What is checked, in words: the name of a check, what it protects, what to do; and checks of one set of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ckptctl.preflight.check import Problem
from ckptctl.preflight.finding import Finding, Level

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Described:
    """`name` and `group` are stable; `protects` says in a sentence what would go wrong without the check."""

    name: str
    group: str
    protects: str
    remedy: str

    def ok(self, summary: str, data: tuple[tuple[str, str], ...] = ()) -> Finding:
        """All is well."""
        return Finding(self.name, self.group, Level.OK, summary, None, data)

    def warning(self, summary: str, remedy: str | None = None, data: tuple[tuple[str, str], ...] = ()) -> Finding:
        """Something that may spoil a dump or a restore; `remedy` takes the place of the check's own."""
        return Finding(self.name, self.group, Level.WARNING, summary, remedy or self.remedy, data)

    def error(self, summary: str, remedy: str | None = None, data: tuple[tuple[str, str], ...] = ()) -> Finding:
        """Something that stands in the way; `remedy` takes the place of the check's own."""
        return Finding(self.name, self.group, Level.ERROR, summary, remedy or self.remedy, data)


@dataclass(frozen=True, slots=True)
class Question(Described, Generic[Facts]):
    """A check of facts of one kind; `fine` is said where it has nothing to say."""

    fine: str
    examine: Callable[[Facts], Iterable[Problem]] = field(repr=False)

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """A finding for each problem, or one that all is well."""
        problems = list(self.examine(facts))
        for problem in problems:
            yield Finding(
                self.name, self.group, problem.level, problem.summary, problem.remedy or self.remedy, problem.data
            )
        if not problems:
            yield self.ok(self.fine)
