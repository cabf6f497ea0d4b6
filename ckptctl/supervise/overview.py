"""How the runs of a store fare: what their supervisors wrote down, against what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from ckptctl.errors import CkptctlError
from ckptctl.process.identity import ProcessId, exists
from ckptctl.store.catalog import Entry, list_runs, list_snapshots
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.manifest import Progress
from ckptctl.store.owner import Liveness, Owner
from ckptctl.supervise import supervision
from ckptctl.supervise.exits import JobExit, read_exit
from ckptctl.supervise.job import Keepers, keeper_among, list_keepers, running_as_saved
from ckptctl.supervise.supervision import Alert, JobRecord, RunState, Sample, Saved, Supervision


class Standing(StrEnum):
    """How a run stands, as far as it can be seen from here."""

    RUNNING = "running"
    UNATTENDED = "unattended"  # the job runs, and nobody looks after it
    ELSEWHERE = "elsewhere"  # its supervisor is on another machine, or in another PID namespace
    SAVED = "saved"
    STOPPED = "stopped"
    FINISHED = "finished"
    DIED = "died"
    NOT_STARTED = "not started"
    LOST = "lost"  # both the job and its supervisor were killed: the same command brings it back
    GONE = "gone"
    SNAPSHOTS = "snapshots"  # never supervised; snapshots are all that there is


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest snapshot that is sound."""

    id: Annotated[str, "its id"]
    created: Annotated[datetime, "when its dump began"]
    step: Annotated[int | None, "the step that it holds"]
    size_bytes: Annotated[int, "what it takes on the disk"]


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run."""

    run: Annotated[str, "its name"]
    standing: Annotated[Standing, "how it stands"]
    watched: Annotated[bool, "whether others have started the job, so that `restore` and not `run` brings it back"]
    given_up: Annotated[bool, "whether it died at the same step three times in a row"]
    command: Annotated[tuple[str, ...], "the words of the job"]
    pid: Annotated[int | None, "root of the job's tree; null where it does not run on this machine"]
    supervisor_pid: Annotated[int | None, "the ckptctl that looks after it; null where none does"]
    host: Annotated[str | None, "the machine of its supervisor"]
    progress: Annotated[Progress, "how far the training is"]
    steps_per_s: Annotated[float | None, "steps per second, lately; null where no step is known"]
    memory_bytes: Annotated[int | None, "resident memory of the job"]
    gpu_bytes: Annotated[int | None, "its memory on GPUs; null where that cannot be told"]
    snapshots: Annotated[int, "how many there are"]
    snapshots_bytes: Annotated[int, "what they take on the disk"]
    newest: Annotated[Newest | None, "the newest one"]
    last: Annotated[Saved | None, "the newest one that a supervisor took"]
    next_due: Annotated[str, "when the next is due, in words"]
    exit_status: Annotated[int | None, "how the job ended: its exit status, or -N for signal N"]
    updated: Annotated[datetime | None, "when this was last written down"]
    alerts: Annotated[tuple[Alert, ...], "what a person should know of, oldest first"]
    samples: Annotated[tuple[Sample, ...], "the job over time"]
    problem: Annotated[str | None, "why not all of this could be read"] = None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A store with its runs."""

    store: Annotated[str, "its folder"]
    free_bytes: Annotated[int | None, "free space of its file system"]
    total_bytes: Annotated[int | None, "all space of its file system"]
    runs: Annotated[tuple[RunStatus, ...], "its runs, by name"]


def overview(store: Store, run: str | None, here: Owner) -> StoreStatus:
    """Every run of the store, or the one named. Raises BadRunName, FileTrouble."""
    runs = list_runs(store) if run is None else (store.run(run),)
    try:
        disk = os.statvfs(store.path)
    except OSError:
        free, total = None, None
    else:
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    keepers = list_keepers()
    return StoreStatus(str(store.path), free, total, tuple(_status(store, one, keepers, here) for one in runs))


def _status(store: Store, run: RunFolder, keepers: Keepers, here: Owner) -> RunStatus:
    entries = list_snapshots(store, run.name)
    try:
        known, problem = supervision.read(run.supervision), None
    except CkptctlError as error:
        known, problem = None, error.message
    job = known.job if known else None
    root = _living(known, here)
    samples = _since(job, known.samples) if known and root else ()
    root = root or _brought_back(known, run, keepers, entries)
    attended = known is not None and known.is_supervised(here)
    standing = _standing(known, here, lives=root is not None)
    exit_status = known.exit_status if known and root is None else None
    ended = _ended_unseen(run, job) if standing is Standing.LOST else None
    if ended is not None:
        standing, exit_status = Standing.DIED if ended.status else Standing.FINISHED, ended.status
    return RunStatus(
        run=run.name,
        standing=standing,
        watched=known is not None and known.begun is None,
        given_up=known is not None and known.given_up,
        command=known.command if known else (),
        pid=root.pid if root else None,
        supervisor_pid=known.supervisor.pid if known and attended else None,
        host=known.supervisor.host if known else None,
        progress=known.progress if known else Progress(),
        steps_per_s=_steps_per_s(samples),
        memory_bytes=samples[-1].memory_bytes if samples else None,
        gpu_bytes=samples[-1].gpu_bytes if samples else None,
        snapshots=len(entries),
        snapshots_bytes=sum(entry.manifest.images.size_bytes for entry in entries if entry.manifest),
        newest=next(_newest(entries), None),
        last=known.last if known else None,
        next_due=known.next_due if known and attended else "",
        exit_status=exit_status,
        updated=known.updated if known else None,
        alerts=known.alerts if known else (),
        samples=known.samples if known else (),
        problem=problem,
    )


def _standing(known: Supervision | None, here: Owner, *, lives: bool) -> Standing:
    if known is None:
        return Standing.UNATTENDED if lives else Standing.SNAPSHOTS
    if known.state not in (RunState.RUNNING, RunState.LEFT):
        return Standing.UNATTENDED if lives else Standing(known.state.value)
    liveness = known.supervisor.liveness(here)
    if liveness is Liveness.UNKNOWN:
        return Standing.ELSEWHERE
    if lives:
        attended = known.state is RunState.RUNNING and liveness is Liveness.ALIVE
        return Standing.RUNNING if attended else Standing.UNATTENDED
    if liveness is Liveness.ALIVE and known.state is RunState.RUNNING:
        return Standing.RUNNING  # its supervisor is about to notice
    # What was only watched has no command that brings it back.
    return Standing.LOST if known.begun is not None else Standing.GONE


def _ended_unseen(run: RunFolder, job: JobRecord | None) -> JobExit | None:
    """How the job ended while nobody looked after it, as its keeper wrote it down; None where that was killed too."""
    try:
        found = read_exit(run.job_exit)
    except CkptctlError:
        return None
    # One from before this job is none of its own.
    return found if found and job and found.ended_s >= job.started.timestamp() else None


def _living(known: Supervision | None, here: Owner) -> ProcessId | None:
    """The root of the job as it was written down, if that lives."""
    if known is None or known.job is None:
        return None
    then = known.supervisor
    # Whether its pid is one of this boot, as pids are seen from here.
    is_here = (then.boot_id, then.pid_namespace) == (here.boot_id, here.pid_namespace)
    return known.job.identity if is_here and exists(known.job.identity) else None


def _brought_back(
    known: Supervision | None, run: RunFolder, keepers: Keepers, entries: tuple[Entry, ...]
) -> ProcessId | None:
    """The root of a job that runs though it was not written down: somebody has restored it by hand."""
    if known is None or known.begun is not None:
        return keeper_among(keepers, run)
    newest = next((entry.manifest for entry in reversed(entries) if entry.manifest is not None), None)
    return running_as_saved(newest) if newest else None


def _since(job: JobRecord | None, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Those of this job: what was measured before it was restored says nothing of how fast it is."""
    return tuple(sample for sample in samples if job is not None and sample.when >= job.started)


def _newest(entries: tuple[Entry, ...]) -> Iterator[Newest]:
    for entry in reversed(entries):
        if entry.manifest is not None:
            found = entry.manifest
            yield Newest(entry.id, found.created, found.progress.step, found.images.size_bytes)


def _steps_per_s(samples: tuple[Sample, ...]) -> float | None:
    """Over the newer half of the samples in which the step goes up: a resume sets it back."""
    rising: list[Sample] = []
    for sample in reversed(samples[-(len(samples) // 2 + 2) :]):
        if sample.step is None or (rising and sample.step > (rising[-1].step or 0)):
            break
        rising.append(sample)
    if len(rising) < 2:
        return None
    seconds = (rising[0].when - rising[-1].when).total_seconds()
    steps = (rising[0].step or 0) - (rising[-1].step or 0)
    return steps / seconds if seconds > 0 else None
