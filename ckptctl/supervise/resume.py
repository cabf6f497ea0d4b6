"""How a run begins: with the job that lives on, from its newest good snapshot, or from the start."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.criu.failures import CriuRestoreFailed
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Caution, Notice
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot import select
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.restore import PidsTaken, restore
from ckptctl.snapshot.restore_request import Restored, RestoreRequest
from ckptctl.snapshot.returned import NotReturned
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.twice import JobRuns
from ckptctl.store import links
from ckptctl.store.catalog import list_ids
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.store.manifest_json import ManifestDamaged
from ckptctl.store.selectors import NothingMatched
from ckptctl.supervise.exits import Watch
from ckptctl.supervise.job import (
    EndedInside,
    Job,
    end_all,
    ended_inside,
    find_keeper,
    find_strays,
    forget_former_exit,
    has_ended_in,
)
from ckptctl.supervise.launch import Launch, cuda_launcher, start
from ckptctl.supervise.plan import Care, Start

_IDS_TAKEN: Final = frozenset({"criu.pid-taken", "criu.thread-id-taken"})


class RunLives(CkptctlError):
    """A run was to start from the beginning, but its job still runs."""

    code = "E_RUN_LIVES"
    exit_status = ExitStatus.LOCKED


class Beginning(Enum):
    """How the job came to run."""

    TAKEN_OVER = "taken over"
    RESTORED = "restored"
    STARTED = "started"


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that runs; `snapshot_id` and `progress` are those of the snapshot that it was restored from.

    `shown_from`: where in its logs begins what it writes from now on, in bytes.
    """

    job: Job
    how: Beginning
    shown_from: Mapping[Path, int]
    snapshot_id: str | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Before:
    """What was before.

    `outdated`: snapshots from before the run was last started from the beginning, which do not count. `command`: what
    it was started with, empty where it never was; `cwd`: in which folder, where that is known. `living`: the root of
    its job as it was written down, which has no keeper where others have started the job; None where it has ended.
    `on_root` hears of the root of a new tree before the job runs.
    """

    outdated: frozenset[str]
    command: tuple[str, ...]
    living: ProcessId | None
    on_root: Callable[[ProcessId], None]
    cwd: str | None = None


def begin(care: Care, wanted: Start, services: Services, before: Before) -> Begun:
    """Take over the job that lives, else restore it, else start it; what was done is said in one line.

    Raises RunLives where a job that lives was to be started anew, and what `restore` and `launch.start` raise: a run
    whose snapshots cannot be restored here does not begin anew, which would be to lose them unsaid.
    """
    living = find_keeper(care.run) or before.living
    if living is not None:
        return _take_over(care, wanted, services, before, living)
    strays = find_strays(care.run)
    if strays:
        end_all(strays)
        text = f"Processes of the job that had lost their keeper are ended, they would disturb it: {_pids(strays)}."
        services.reporter.report(Caution(text, "W_STRAYS"))
    ids = [name for name in list_ids(care.run) if name not in before.outdated]
    if wanted.resume and ids:
        return _resume(care, wanted, services, before, ids)
    services.interrupt.check()
    begun = _start(care, wanted, services, before.on_root)
    why = "it has no snapshot yet" if wanted.resume else "as asked"
    text = f"The run {care.run.name} starts from the beginning, {why} (pid {begun.job.root.pid})."
    services.reporter.report(Notice(text))
    return begun


def _take_over(care: Care, wanted: Start, services: Services, before: Before, root: ProcessId) -> Begun:
    if not wanted.resume:
        raise RunLives(
            f"The job of the run {care.run.name} still runs (pid {root.pid}), and was not started anew.",
            hint=f"End it first (kill {root.pid}), or leave --no-resume away to look after it.",
        )
    forget_former_exit(care.run, root)
    job = Job(root, care.run.job_exit)
    services.reporter.report(Notice(f"The job of the run {care.run.name} still runs (pid {root.pid}): taken over."))
    say_other_job(before.command, before.cwd, wanted, services)
    return Begun(job, Beginning.TAKEN_OVER, _sizes(care.run))


def _start(care: Care, wanted: Start, services: Services, on_root: Callable[[ProcessId], None]) -> Begun:
    launch = Launch(
        command=wanted.command,
        run=care.run,
        environment=wanted.environment,
        cwd=wanted.cwd,
        umask=wanted.umask,
        allow_io_uring=wanted.allow_io_uring,
        cuda_launcher=cuda_launcher(services.read_gpu_facts(), wanted.environment.get("PATH", os.defpath)),
    )
    files.remove(care.run.job_status)
    before = _sizes(care.run)
    launched = start(launch, on_root)
    if launched.io_uring_trouble is not None:
        text = f"The job is not kept from io_uring, which cannot be dumped: {launched.io_uring_trouble}."
        services.reporter.report(Caution(text, "W_IO_URING"))
    return Begun(Job(launched.keeper, care.run.job_exit, launched.watch), Beginning.STARTED, before)


def _resume(care: Care, wanted: Start, services: Services, before: Before, ids: Sequence[str]) -> Begun:
    """From the newest snapshot that can be restored; why newer ones were passed over is said."""
    sizes = _sizes(care.run)
    chosen, restored = _restore_newest(care, wanted, services, ids)
    step = chosen.manifest.progress.step
    at = f", at step {step}" if step is not None else ""
    text = f"The run {care.run.name} goes on from {chosen.manifest.id}{at} (pid {restored.root.pid})."
    services.reporter.report(Notice(text))
    say_other_job(before.command, before.cwd, wanted, services)
    cut = {item.path: item.size_bytes for item in restored.report.rolled_back}
    job = Job(restored.root, care.run.job_exit, Watch(restored.root, care.run.job_exit, restored.child))
    return Begun(job, Beginning.RESTORED, {**sizes, **cut}, chosen.manifest.id, chosen.manifest.progress)


def _restore_newest(
    care: Care, wanted: Start, services: Services, ids: Sequence[str]
) -> tuple[select.Chosen, Restored]:
    candidates = _newest_first(care.run, ids)
    first: CkptctlError | None = None
    for number, name in enumerate(candidates, 1):
        try:
            chosen = select.choose(care.store, name, care.run.name, services)
            if has_ended_in(chosen.manifest.tree):
                raise ended_inside(name)
            return chosen, _restore(chosen, wanted, care, services)
        except (EndedInside, ManifestDamaged, NothingMatched, CriuRestoreFailed, NotReturned, SnapshotDamaged) as error:
            first = first or error
            then = "The one before it is tried." if number < len(candidates) else "There is none before it."
            services.reporter.report(Caution(f"{name}: {error.message} {then}", error.code))
    assert first is not None
    raise first


def _newest_first(run: RunFolder, ids: Sequence[str]) -> tuple[str, ...]:
    """`latest` is the newest whatever the clock said when it was taken; then `backup`, then the others by time."""
    named = [links.target(run, link) or "" for link in (run.latest, run.backup)]
    return tuple(dict.fromkeys(name for name in (*named, *reversed(ids)) if name in ids))


def _restore(chosen: select.Chosen, wanted: Start, care: Care, services: Services) -> Restored:
    # Both tell of what lies behind the snapshot, which will not have happened.
    files.remove(care.run.job_exit)
    files.remove(care.run.job_status)
    try:
        return restore(_request(chosen, wanted, new_pid_namespace=False), services)
    except JobRuns as error:
        run, pid = chosen.manifest.run, error.details["pid"]
        raise RunLives(
            f"The job of the run {run} seems to run as process {pid}: it was not brought back twice.",
            hint=f"Look after it (ckptctl watch --pid {pid} --run {run}), or end it first.",
        ) from error
    except (PidsTaken, CriuRestoreFailed) as error:
        # Somebody may also have taken one of them after it was seen to be free.
        if isinstance(error, CriuRestoreFailed) and error.failure.code not in _IDS_TAKEN:
            raise
        services.reporter.report(Caution(f"{error.message} The job gets a PID namespace of its own.", error.code))
    return restore(_request(chosen, wanted, new_pid_namespace=True), services)


def say_other_job(command: tuple[str, ...], cwd: str | None, wanted: Start, services: Services) -> None:
    """Say that the run is that of another job than what is wanted now, by its command or the folder of its start."""
    if command and command != wanted.command:
        text = (
            f"The run is that of the command that it was started with: {shlex.join(command)}. "
            "For the new one, start it from the beginning (--no-resume) or as a run of its own (--run)."
        )
        services.reporter.report(Caution(text, "W_OTHER_COMMAND"))
    elif cwd not in (None, str(wanted.cwd)):
        text = (
            f"The run is that of the job that was started in {cwd}, not here in {wanted.cwd}. "
            "For another job of the same name, start it as a run of its own (--run)."
        )
        services.reporter.report(Caution(text, "W_OTHER_FOLDER"))


def _pids(processes: Iterable[ProcessId]) -> str:
    return ", ".join(str(one.pid) for one in processes)


def _sizes(run: RunFolder) -> dict[Path, int]:
    """How long the job's logs are; one that is not there yet will begin at 0."""
    return {log: log.stat().st_size if log.exists() else 0 for log in (run.stdout, run.stderr)}


def _request(chosen: select.Chosen, wanted: Start, *, new_pid_namespace: bool) -> RestoreRequest:
    return RestoreRequest(
        folder=chosen.folder,
        manifest=chosen.manifest,
        store=chosen.store,
        files=wanted.files,
        new_pid_namespace=new_pid_namespace,
    )
