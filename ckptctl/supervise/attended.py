"""A dump by hand of a job that belongs to a run: it goes to that run, and ends nothing that is looked after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Notice
from ckptctl.process import proc
from ckptctl.process.identity import ProcessId
from ckptctl.process.member import read_stat
from ckptctl.snapshot.dump_request import DumpRequest, StoreTarget
from ckptctl.snapshot.services import Services
from ckptctl.store import locks
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.manifest import Progress
from ckptctl.store.names import is_run_name
from ckptctl.supervise.duty import read_duties
from ckptctl.supervise.job import kept_in


class JobAttended(CkptctlError):
    """A dump was to end a job that `ckptctl run` or `watch` looks after. `details`: `run`, and `pid` of that."""

    code = "E_JOB_ATTENDED"
    exit_status = ExitStatus.LOCKED


@dataclass(frozen=True, slots=True)
class Attended:
    """The run to whose job a process belongs; `root` is what its snapshots are taken of.

    `kept`: under a keeper, without which the run cannot go on with a snapshot.
    """

    store: Store
    run: RunFolder
    root: ProcessId
    kept: bool


def for_its_run(request: DumpRequest, services: Services, *, elsewhere: bool) -> DumpRequest:
    """The request as it suits the run that the job belongs to, where it belongs to one: its store and its name.

    A run or a folder that is named in the request stays; `elsewhere`: so does its store. Of a job under a keeper all
    is saved, with what the job tells of its progress. Raises JobAttended, FileTrouble, DutyDamaged.
    """
    found = run_of(request.pid, services)
    if found is None:
        return request
    if not request.leave_running:
        _require_unattended(request.pid, found, services)
    target = request.target
    if not isinstance(target, StoreTarget) or target.run not in (None, found.run.name):
        return request
    if not found.kept and request.pid != found.root.pid:
        return request  # a part of a job that is watched is another thing than the whole
    if request.pid != found.root.pid:
        text = f"Process {request.pid} belongs to the job of the run {found.run.name}: all of that is saved"
        services.reporter.report(Notice(f"{text}, from its keeper (pid {found.root.pid})."))
    named = target.run is not None or elsewhere
    return replace(
        request,
        pid=found.root.pid,
        target=StoreTarget(target.store if named else found.store, found.run.name),
        read_progress=_reader(found.run, services) if found.kept else None,
    )


def run_of(pid: int, services: Services) -> Attended | None:
    """The run to whose job this process belongs; None where it is none of one. Raises FileTrouble, DutyDamaged."""
    above = tuple(_with_ancestors(pid))
    for process in above:
        with suppress(OSError, proc.Vanished):
            folder = kept_in(process.pid)
            if folder is not None and is_run_name(folder.name) and folder.parent.name == "runs":
                return Attended(Store(folder.parent.parent), RunFolder(folder), process, kept=True)
    for duty in read_duties(services.host_state, services.owner):
        if duty.watched is not None and (root := duty.root) in above and root is not None:
            return Attended(Store(duty.store), duty.folder, root, kept=False)
    return None


def _reader(run: RunFolder, services: Services) -> Callable[[], Progress]:
    from ckptctl.progress.parse import Places, parse_sources
    from ckptctl.progress.reader import ProgressReader

    return ProgressReader(parse_sources((), Places(run.job_status, (run.stdout, run.stderr))), services.reporter).read


def _require_unattended(pid: int, found: Attended, services: Services) -> None:
    run = found.run
    attended = locks.in_the_way(found.store.locks, [locks.supervision_of(run.name)], services.owner)
    if attended is None:
        return
    supervisor = attended.details.get("pid")
    asks = "SIGTERM saves the job and ends it" if found.kept else "SIGTERM ends the watch, and the job is yours then"
    raise JobAttended(
        f"Process {pid} belongs to the job of a run, and was not ended. {attended.message}",
        hint=f"Ask that (kill {supervisor}: {asks}, unless --on-signal says otherwise), or let the job go on: "
        f"--leave-running, or for a snapshot at once `touch {run.snapshot_request}`.",
        details={"run": run.name, "pid": supervisor},
    )


def _with_ancestors(pid: int) -> Iterator[ProcessId]:
    """The process and those above it."""
    while pid > 1:
        try:
            stat = read_stat(f"/proc/{pid}/stat")
        except proc.Vanished:
            return
        yield stat.id
        pid = stat.parent_pid
