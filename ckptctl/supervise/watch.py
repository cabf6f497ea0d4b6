"""Looking after a job that others have started, for as long as it runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.preflight.finding import blockers
from ckptctl.process.identity import ProcessId
from ckptctl.schedule import history as remembered
from ckptctl.schedule.explain import explain
from ckptctl.snapshot.readiness import Target, of_job
from ckptctl.snapshot.services import Services
from ckptctl.supervise.chronicle import Chronicle
from ckptctl.supervise.claim import claim
from ckptctl.supervise.job import Job, find_keeper
from ckptctl.supervise.plan import Care
from ckptctl.supervise.reactions import AskedToStop, Signals
from ckptctl.supervise.run import ended, listening
from ckptctl.supervise.snapshots import Snapshots
from ckptctl.supervise.supervision import JobRecord, RunState
from ckptctl.supervise.supervisor import Ending, Hands, Supervisor

_ASK_LIMIT_S: Final = 30.0
_NAMED_MOST: Final = 3


def watch(care: Care, root: ProcessId, command: tuple[str, ...], services: Services, signals: Signals) -> int:
    """Take snapshots of the tree until it ends; returns the exit status of ckptctl.

    Raises NoSuchProcess, and Locked where another ckptctl looks after the run.
    """
    asked = replace(services, interrupt=AskedToStop(signals, care.reactions))
    with claim(care.store, care.run, asked) as ours, listening(care):
        if find_keeper(care.run) != root:
            # It would tell of another job.
            files.remove(care.run.job_exit)
        chronicle = Chronicle(care, command, services)
        snapshots = Snapshots(care.store, care.run.name, care.manner, care.around.hooks, services)
        known = chronicle.state.job
        # The watcher before this one may have been killed.
        earlier = chronicle.history(time.monotonic()) if known and known.identity == root else None
        job = Job(root, care.run.job_exit)
        try:
            chronicle.found(JobRecord(root.pid, root.start_ticks, services.now()))
            chronicle.say(f"The job {root.pid} is watched; its snapshots go to the run {care.run.name}.")
            history = earlier or remembered.started(time.monotonic())
            chronicle.say(" ".join(explain(care.policy, history)))
            _say_what_stands_in_the_way(care, root, chronicle, services)
            supervisor = Supervisor(care, Hands(snapshots, chronicle, signals, ours), care.open_progress({}), services)
            ending = supervisor.look_after(job, history)
        finally:
            job.close()
        chronicle.remember(supervisor.history)
        return ended(care, _as_seen_from_outside(ending), chronicle).status


def _say_what_stands_in_the_way(care: Care, root: ProcessId, chronicle: Chronicle, services: Services) -> None:
    """That a job cannot be saved is better known now than when its first snapshot is due; it may change until then."""
    try:
        answer = of_job(root.pid, Target(care.store.path, lambda: care.store), services, _ASK_LIMIT_S)
    except CkptctlError as error:
        chronicle.alert(error.code, f"Whether the job can be saved cannot be said: {error.message}")
        return
    found = blockers(answer.findings)
    if found:
        more = f" And {len(found) - _NAMED_MOST} more." if len(found) > _NAMED_MOST else ""
        named = " ".join(finding.summary for finding in found[:_NAMED_MOST])
        text = f"As it is now, the job cannot be saved: {named}{more} `ckptctl check --pid {root.pid}` says what to do."
        chronicle.alert("W_NOT_READY", text)


def _as_seen_from_outside(ending: Ending) -> Ending:
    """Only its parent learns how a process ended: that it is over is all that can be said."""
    if ending.state is RunState.DIED:
        return replace(ending, state=RunState.GONE, status=ExitStatus.DONE, job_status=None)
    return ending
