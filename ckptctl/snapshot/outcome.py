"""What became of the job: every command that touched a process ends by saying it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ckptctl.errors import CkptctlError, ExitStatus


class JobState(StrEnum):
    """How a job stands when a command ends."""

    RUNNING = "running"
    ENDED = "ended"  # on purpose, its snapshot committed
    STOPPED = "stopped"
    LEFT_STOPPED = "left stopped"  # by whoever stopped it before the command came
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The job's root process and its state, with a sentence for people."""

    pid: int
    state: JobState
    sentence: str


class JobLost(CkptctlError):
    """The job neither runs nor can it be restored from this command's snapshot."""

    code = "E_JOB_LOST"
    exit_status = ExitStatus.PROCESS_LOST


def after_failed_dump(
    error: CkptctlError,
    outcome: Outcome,
    *,
    touched: bool,
    snapshot: Path | None,
    gpu_failure: CkptctlError | None,
) -> CkptctlError:
    """The error of a dump, saying what became of the job; a JobLost where the job was lost by the dump.

    `touched`: the dump had come so far that it changed something. `snapshot` is where it was committed before it
    failed, `gpu_failure` why the job could not be given its GPU memory back.
    """
    if gpu_failure is not None:
        return JobLost(
            f"The dump failed ({error.message}), and so did giving the job its GPU memory back: {gpu_failure.message}",
            hint=gpu_failure.hint,
            details={**error.details, **gpu_failure.details},
            outcome=gpu_failure.outcome or outcome.sentence,
        )
    if snapshot is not None:
        error.outcome = f"The snapshot {snapshot} is complete. {outcome.sentence}"
    elif not touched or outcome.state in (JobState.RUNNING, JobState.LEFT_STOPPED):
        error.outcome = outcome.sentence
    else:
        return JobLost(
            f"The dump failed, and the job does not run: {error.message}",
            hint="Run `ckptctl recover` to let it run on." if outcome.state is JobState.STOPPED else error.hint,
            details=error.details,
            outcome=outcome.sentence,
        )
    return error
