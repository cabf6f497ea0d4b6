"""How a run begins: with the job that lives on, from its newest good snapshot, or from the start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from ckptctl.criu.failures import CriuRestoreFailed
from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Notice
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot import select
from ckptctl.snapshot.restore import PidsTaken, SnapshotDamaged, restore
from ckptctl.snapshot.restore_request import Restored, RestoreRequest
from ckptctl.snapshot.returned import NotReturned
from ckptctl.snapshot.services import Services
from ckptctl.store import links
from ckptctl.store.catalog import list_ids
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.store.manifest_json import ManifestDamaged
from ckptctl.store.names import id_time
from ckptctl.store.selectors import NothingMatched
from ckptctl.supervise.exits import Watch, forget_exit
from ckptctl.supervise.job import Job, end_all, find_keeper, find_strays
from ckptctl.supervise.launch import Launch, cuda_launcher, start
from ckptctl.supervise.plan import Care, Start


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
    """What was before: only snapshots since `begun` count, when the run was last started from the beginning.

    `on_root` hears of the root of a new tree before the job runs.
    """

    begun: datetime | None
    on_root: Callable[[ProcessId], None]


def begin(care: Care, wanted: Start, services: Services, before: Before) -> Begun:
    """Take over the job that lives, else restore it, else start it; what was done is said in one line.

    Raises what `restore` and `launch.start` raise: a
    run whose snapshots cannot be restored here does not begin anew, which would be to lose them unsaid.
    """
    say = services.reporter.report
    living = find_keeper(care.run)
    if living is not None:
        say(Notice(f"The job of the run {care.run.name} lives (pid {living.pid}): it is taken over."))
        return Begun(Job(living, care.run.job_exit), Beginning.TAKEN_OVER, _sizes(care.run))
    strays = find_strays(care.run)
    if strays:
        end_all(strays)
        text = f"Processes of the job that lived on without its keeper are ended: {_pids(strays)}."
        say(Caution(text, "W_STRAYS"))
    ids = _ids(care.run, before.begun)
    if wanted.resume and ids:
        return _resume(care, wanted, services, ids)
    services.interrupt.check()
    begun = _start(care, wanted, services, before.on_root)
    say(Notice(f"The run {care.run.name} starts from the beginning (pid {begun.job.root.pid})."))
    return begun


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
    care.run.job_status.unlink(missing_ok=True)
    before = _sizes(care.run)
    launched = start(launch, on_root)
    if launched.io_uring_trouble is not None:
        text = f"The job is not kept from io_uring, which cannot be dumped: {launched.io_uring_trouble}."
        services.reporter.report(Caution(text, "W_IO_URING"))
    return Begun(Job(launched.keeper, care.run.job_exit, launched.watch), Beginning.STARTED, before)


def _resume(care: Care, wanted: Start, services: Services, ids: Sequence[str]) -> Begun:
    """From the newest snapshot that can be restored; why newer ones were passed over is said."""
    failures: list[CkptctlError] = []
    before = _sizes(care.run)
    for chosen in _candidates(care, services, ids, failures):
        try:
            restored = _restore(chosen, wanted, care, services)
        except (CriuRestoreFailed, NotReturned, SnapshotDamaged) as error:
            failures.append(error)
            text = f"The snapshot {chosen.manifest.id} could not be restored: {error.message} The one before is tried."
            services.reporter.report(Caution(text, error.code))
            continue
        step = chosen.manifest.progress.step
        at = f" at step {step}" if step is not None else ""
        text = f"The run {care.run.name} goes on from {chosen.manifest.id}{at} (pid {restored.root.pid})."
        services.reporter.report(Notice(text))
        cut = {item.path: item.size_bytes for item in restored.report.rolled_back}
        job = Job(restored.root, care.run.job_exit, Watch(restored.root, care.run.job_exit, restored.child))
        return Begun(job, Beginning.RESTORED, {**before, **cut}, chosen.manifest.id, chosen.manifest.progress)
    raise failures[0]


def _ids(run: RunFolder, begun: datetime | None) -> tuple[str, ...]:
    """The snapshots of this course of the run, oldest first."""
    since = begun.replace(microsecond=0) if begun else None
    return tuple(name for name in list_ids(run) if since is None or id_time(name) >= since)


def _candidates(
    care: Care, services: Services, ids: Sequence[str], failures: list[CkptctlError]
) -> Iterator[select.Chosen]:
    """`latest` (or `backup`, where that is damaged), then every older one, newest first."""
    newest = links.target(care.run, care.run.latest)
    older = [name for name in reversed(ids) if newest is None or name < newest]
    tried = set()
    for selector in ("latest", *older) if newest in ids else older:
        try:
            chosen = select.choose(care.store, selector, care.run.name, services)
        except (ManifestDamaged, NothingMatched) as error:
            failures.append(error)
            continue
        if chosen.folder.name not in tried:
            tried.add(chosen.folder.name)
            yield chosen


def _restore(chosen: select.Chosen, wanted: Start, care: Care, services: Services) -> Restored:
    # Both tell of what lies behind the snapshot, which will not have happened.
    forget_exit(care.run.job_exit)
    care.run.job_status.unlink(missing_ok=True)
    try:
        return restore(_request(chosen, wanted, new_pid_namespace=False), services)
    except PidsTaken as error:
        text = f"{error.message} The job gets a PID namespace of its own."
        services.reporter.report(Caution(text, error.code))
    return restore(_request(chosen, wanted, new_pid_namespace=True), services)


def _pids(processes: Iterable[ProcessId]) -> str:
    return ", ".join(str(one.pid) for one in processes)


def _sizes(run: RunFolder) -> dict[Path, int]:
    return {log: log.stat().st_size for log in (run.stdout, run.stderr) if log.exists()}


def _request(chosen: select.Chosen, wanted: Start, *, new_pid_namespace: bool) -> RestoreRequest:
    return RestoreRequest(
        folder=chosen.folder,
        manifest=chosen.manifest,
        store=chosen.store,
        verified=chosen.verified,
        files=wanted.files,
        new_pid_namespace=new_pid_namespace,
        criu_options=(),
    )
