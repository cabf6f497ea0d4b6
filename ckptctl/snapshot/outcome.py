"""What became of the job: every command that touched a process ends by saying it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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
