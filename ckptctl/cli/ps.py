"""ckptctl ps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt
from ckptctl.cli.session import Manner, emit, session

if TYPE_CHECKING:
    from ckptctl.snapshot.jobs import Job

STATUSES: Final = "Exit status: 0 done; 2 usage."

_COLUMNS: Final = (
    ("pid", "right"), ("user", "left"), ("memory", "right"), ("gpu memory", "right"), ("age", "right"),
    ("dump", "left"), ("command", "left"),
)  # fmt: skip
_COMMAND_CHARACTERS: Final = 80


def ps(
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Everything that leads a process group: services and shells too.")
    ] = False,
    json: JsonOpt = False,
) -> int:
    """List jobs that could be dumped, and what blocks the others.

    A job is a process tree whose root was started by torchrun, python, mpirun or the like, or uses a GPU. The tree in
    which ckptctl itself runs is not listed.
    """
    from ckptctl.output import text
    from ckptctl.snapshot.jobs import find_jobs

    manner = Manner(json, quiet=True)
    with session(manner, repair=False) as app:
        jobs = find_jobs(app.asking, everything=everything)
    words = text.table(_COLUMNS, [_row(job) for job in jobs], cut=True) if jobs else "No jobs are running."
    return emit(manner, "ps", jobs, words)


def _row(job: Job) -> list[str]:
    from ckptctl.units import format_duration, format_size

    command = " ".join(job.command)
    return [
        str(job.pid),
        job.user,
        format_size(job.memory_bytes),
        "" if job.gpu_bytes is None else format_size(job.gpu_bytes),
        format_duration(max(job.age_s, 1.0)),
        "ready" if job.ready else job.blockers[0],
        command if len(command) <= _COMMAND_CHARACTERS else command[: _COMMAND_CHARACTERS - 3] + "...",
    ]
