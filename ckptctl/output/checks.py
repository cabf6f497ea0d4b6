"""The answer of `ckptctl check`: as people read it, as one line for a monitoring system, as a JSON document."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Final, TextIO

from ckptctl.output import stream
from ckptctl.output.text import counted
from ckptctl.preflight.finding import Finding, Level
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from ckptctl.snapshot.readiness import JobAnswer

_WIDTH: Final = 100
_SYMBOLS: Final = {Level.OK: "✓", Level.WARNING: "!", Level.ERROR: "✗", Level.SKIPPED: "\N{EN DASH}"}
_COLOURS: Final = {Level.OK: "32", Level.WARNING: "33", Level.ERROR: "31", Level.SKIPPED: "2"}
_WORDS: Final = {Level.OK: "ok", Level.WARNING: "warn", Level.ERROR: "FAIL", Level.SKIPPED: "skip"}
_TITLES: Final = {Level.ERROR: "What stands in the way", Level.WARNING: "What may spoil it"}
_NAMES_WIDEST: Final = 24
_LEAST_ROOM: Final = 40


class Scope(Enum):
    """What was checked."""

    MACHINE = "machine"
    JOB = "job"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `ckptctl check --json`."""

    scope: Annotated[Scope, "what was checked"]
    subject: Annotated[str, "the machine's name, the job's root as `1234 (python)`, or the snapshot's id"]
    ready: Annotated[bool, "whether nothing stands in the way: no finding is an error"]
    errors: Annotated[int, "how many findings are errors"]
    warnings: Annotated[int, "how many findings are warnings"]
    findings: Annotated[tuple[Finding, ...], "what the checks say, `--only-problems` or not"]
    job: Annotated[JobAnswer | None, "with `--pid`: the job; null else"] = None
    mended: Annotated[tuple[str, ...], "with `--fix`: what was mended before this was asked again"] = ()


def report(scope: Scope, subject: str, findings: tuple[Finding, ...], job: JobAnswer | None = None) -> Report:
    """Count the findings."""
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    return Report(scope, subject, errors == 0, errors, warnings, findings, job)


def document(done: Report) -> dict[str, object]:
    """The report for JSON: data of findings as objects, and the job without the findings, which stand beside it."""
    job = done.job
    return {
        "scope": done.scope,
        "subject": done.subject,
        "ready": done.ready,
        "errors": done.errors,
        "warnings": done.warnings,
        "mended": done.mended,
        "findings": [finding_document(finding) for finding in done.findings],
        "job": None
        if job is None
        else {
            name: getattr(job, name) for name in ("pid", "name", "processes", "threads", "gpu", "options", "estimate")
        },
    }


def finding_document(finding: Finding) -> dict[str, object]:
    """A finding with its data as an object."""
    return {
        "check": finding.check,
        "group": finding.group,
        "level": finding.level,
        "summary": finding.summary,
        "remedy": finding.remedy,
        "data": dict(finding.data),
    }


def words(done: Report, *, only_problems: bool) -> str:
    """Tables by group, what is amiss with its remedy, what a dump would do, and the verdict; or what is amiss alone."""
    page = _Page(sys.stdout)
    for group in () if only_problems else dict.fromkeys(one.group for one in done.findings):
        page.table(group, [one for one in done.findings if one.group == group])
    for level, title in _TITLES.items():
        page.problems(title, [one for one in done.findings if one.level is level])
    if done.job is not None and not only_problems:
        page.job(done.job)
    for sentence in done.mended:
        page.add(f"Mended: {sentence}")
    page.add(_verdict(done))
    return "\n".join(page.lines)


def nagios(done: Report, took_s: float) -> tuple[str, int]:
    """The one line and the exit status that monitoring systems know (Monitoring Plugins Development Guidelines)."""
    status = 2 if done.errors else 1 if done.warnings else 0
    first = next((one for level in _TITLES for one in done.findings if one.level is level), None)
    said = first.summary if first else f"{counted(len(done.findings), 'check')} passed"
    numbers = f"errors={done.errors};;0 warnings={done.warnings};0 checks={len(done.findings)} time={took_s:.3f}s"
    return nagios_line(("OK", "WARNING", "CRITICAL")[status], said, numbers), status


def nagios_line(word: str, said: str, numbers: str = "") -> str:
    """`CKPTCTL OK - ... | ...`: a bar in the text would begin the numbers."""
    text = stream.on_one_line(said).replace("|", "/")
    return f"CKPTCTL {word} - {text}" + (f" | {numbers}" if numbers else "")


def _verdict(done: Report) -> str:
    what = {
        Scope.MACHINE: f"{done.subject} can dump and restore",
        Scope.JOB: f"The job {done.subject} can be dumped",
        Scope.SNAPSHOT: f"The snapshot {done.subject} can be restored here",
    }[done.scope]
    if done.ready:
        warned = f", with {counted(done.warnings, 'warning')}" if done.warnings else ""
        return f"{what}{warned}."
    return f"{what.replace(' can ', ' cannot ', 1)}: {counted(done.errors, 'thing')} in the way."


class _Page:
    """Lines for one stream: as wide as its terminal, with marks that its encoding has."""

    def __init__(self, target: TextIO) -> None:
        terminal = target.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not _can_write(target)
        self._marks = _WORDS if plain else _SYMBOLS
        self._coloured = terminal and not plain
        self._mark_width = max(map(len, self._marks.values()))
        self._width = shutil.get_terminal_size().columns if terminal else _WIDTH
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def table(self, title: str, findings: list[Finding]) -> None:
        """One row a finding: mark, name, and what is; of what is amiss one line, for all of it is said below."""
        self.add(title)
        names = min(max(len(one.check) for one in findings), _NAMES_WIDEST)
        for one in findings:
            name = f"{one.check:{names}}  "
            room = max(self._width - self._mark_width - len(name) - 3, _LEAST_ROOM)
            amiss = one.level in _TITLES
            self._row(
                one.level, name, textwrap.shorten(one.summary, room, placeholder=" ...") if amiss else one.summary
            )
        self.add("")

    def problems(self, title: str, findings: list[Finding]) -> None:
        """Each with its remedy."""
        if not findings:
            return
        self.add(title)
        for one in findings:
            self._row(one.level, f"{one.check}: ", one.summary)
            if one.remedy:
                self._wrapped(" " * (self._mark_width + 5), f"What to do: {one.remedy}")
        self.add("")

    def job(self, job: JobAnswer) -> None:
        """GPU use, the options of criu with their reasons, and what the dump would take."""
        self.add("what a dump would do")
        for line in _job_lines(job):
            self._wrapped("  ", line, "    ")
        self.add("")

    def _row(self, level: Level, name: str, text: str) -> None:
        mark = f"{self._marks[level]:{self._mark_width}}"
        before = len(self.lines)
        head = f"  {mark} {name}"
        self._wrapped(head, text, " " * min(len(head), self._mark_width + 5 if name.endswith(": ") else len(head)))
        if self._coloured:
            self.lines[before] = self.lines[before].replace(mark, f"\x1b[{_COLOURS[level]}m{mark}\x1b[0m", 1)

    def _wrapped(self, head: str, text: str, indent: str | None = None) -> None:
        later = " " * len(head) if indent is None else indent
        self.lines += textwrap.wrap(
            stream.on_one_line(text),
            max(self._width, len(later) + 40),
            initial_indent=head,
            subsequent_indent=later,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [head.rstrip()]


def _job_lines(job: JobAnswer) -> Iterator[str]:
    yield f"{counted(job.processes, 'process', 'processes')} with {counted(job.threads, 'thread')}"
    if job.gpu:
        users = ", ".join(f"{one.pid} ({one.name}) {_size(one.size_bytes)}" for one in job.gpu)
        yield f"GPU memory: {_size(job.estimate.device_bytes)} of {users}"
    else:
        yield "GPU memory: none"
    estimate = job.estimate
    pause = "not known" if estimate.frozen_s is None else f"about {format_duration(estimate.frozen_s)}"
    yield f"size of the snapshot: about {format_size(estimate.size_bytes)}"
    yield f"the job would stand still for: {pause} ({estimate.basis})"
    for option in job.options:
        yield f"{' '.join(option.words)}: {option.reason}"


def _size(size_bytes: int | None) -> str:
    return "of unknown size" if size_bytes is None else format_size(size_bytes)


def _can_write(target: TextIO) -> bool:
    try:
        "".join(_SYMBOLS.values()).encode(target.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
