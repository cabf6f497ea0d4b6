"""Running a tuple of named steps: timed, and taken back newest first when one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ckptctl.events import Reporter, StepFinished, StepStarted, StepUndone

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Step(Generic[StateT]):
    """One step of a dump or a restore.

    `undo` must be idempotent and look at the real state, not at what `run` believes that it did: it is called for
    every step that was started, finished or not.
    A step whose `when` says no is left out: it concerns something that this job does not have.
    `final` marks the point from which there is only forward: once it has succeeded nothing is taken back.
    """

    name: str
    title: str
    run: Callable[[StateT], None]
    undo: Callable[[StateT], None] | None = None
    final: bool = False
    when: Callable[[StateT], bool] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a step took."""

    name: str
    seconds: float


def run_steps(
    steps: Sequence[Step[StateT]],
    state: StateT,
    *,
    reporter: Reporter,
    clock: Callable[[], float],
    on_timing: Callable[[Timing], None],
) -> None:
    """Run the steps in order; on any exception undo those started, newest first, and raise it again.

    An undo that fails does not keep the others from running; it is noted on the exception and reported.
    """
    started: list[Step[StateT]] = []
    for step in steps:
        if step.when is not None and not step.when(state):
            continue
        reporter.report(StepStarted(step.name, step.title))
        started.append(step)
        began = clock()
        try:
            step.run(state)
        except BaseException as error:
            _undo(started, state, error, reporter)
            raise
        seconds = clock() - began
        on_timing(Timing(step.name, seconds))
        reporter.report(StepFinished(step.name, seconds))
        if step.final:
            started.clear()


def _undo(started: list[Step[StateT]], state: StateT, error: BaseException, reporter: Reporter) -> None:
    for step in reversed(started):
        if step.undo is None:
            continue
        try:
            step.undo(state)
        except Exception as failure:
            error.add_note(f"Taking back the step {step.name!r} failed too: {failure}")
            reporter.report(StepUndone(step.name, str(failure)))
        else:
            reporter.report(StepUndone(step.name))
