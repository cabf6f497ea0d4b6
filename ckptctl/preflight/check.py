"""A check of a process tree: what it looks for, what it protects, and what to do about what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ckptctl.host.machine import Machine
from ckptctl.preflight.finding import Finding, Level
from ckptctl.process.files import OpenFile
from ckptctl.process.member import Process
from ckptctl.process.tree import Tree


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a check came upon; `remedy` takes the place of the check's own where it is given."""

    level: Level
    summary: str
    data: tuple[tuple[str, str], ...] = ()
    remedy: str | None = None


Examination = Callable[[Tree, Machine], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class Check:
    """`name` is stable; `protects` says in a sentence what would go wrong without it; `fine` is said if nothing is."""

    name: str
    group: str
    protects: str
    fine: str
    remedy: str
    examine: Examination = field(repr=False)

    def findings(self, tree: Tree, machine: Machine) -> Iterator[Finding]:
        """A finding for each problem, or one that all is well."""
        problems = list(self.examine(tree, machine))
        for problem in problems:
            yield Finding(
                self.name, self.group, problem.level, problem.summary, problem.remedy or self.remedy, problem.data
            )
        if not problems:
            yield Finding(self.name, self.group, Level.OK, self.fine)


def file_problems(
    files: Iterable[tuple[Process, OpenFile]], level: Level, describe: Callable[[OpenFile], str]
) -> Iterator[Problem]:
    """One problem for each process that holds such files: `Process 12 (python) holds an io_uring (descriptor 3).`"""
    labels: dict[int, str] = {}
    held: dict[int, list[OpenFile]] = {}
    for process, file in files:
        labels[process.pid] = process.label
        held.setdefault(process.pid, []).append(file)
    for pid, own in held.items():
        what = ", ".join(dict.fromkeys(describe(file) for file in own))
        numbers = ", ".join(str(file.fd) for file in own)
        noun = "descriptor" if len(own) == 1 else "descriptors"
        data = (("pid", str(pid)), ("descriptors", numbers), ("paths", ", ".join(file.path for file in own)))
        yield Problem(level, f"Process {labels[pid]} holds {what} ({noun} {numbers}).", data)
