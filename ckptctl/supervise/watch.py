"""Looking after a job that others have started, for as long as it runs."""

from __future__ import annotations

import time
from dataclasses import replace

from ckptctl.errors import ExitStatus
from ckptctl.process.identity import ProcessId
from ckptctl.schedule import history as remembered
from ckptctl.snapshot.services import Services
from ckptctl.supervise.chronicle import Chronicle
from ckptctl.supervise.job import Job
from ckptctl.supervise.plan import Care
from ckptctl.supervise.reactions import Signals
from ckptctl.supervise.run import alone, ended, listening
from ckptctl.supervise.snapshots import Snapshots
from ckptctl.supervise.supervision import JobRecord, RunState
from ckptctl.supervise.supervisor import Ending, Hands, Supervisor


def watch(care: Care, root: ProcessId, command: tuple[str, ...], services: Services, signals: Signals) -> int:
    """Take snapshots of the tree until it ends; returns the exit status of ckptctl.

    Raises NoSuchProcess, and Locked where another ckptctl looks after the run.
    """
    with alone(care, services), listening(care):
        chronicle = Chronicle(care, command, services)
        snapshots = Snapshots(care.store, care.run.name, care.manner, care.around.hooks, services)
        known = chronicle.state.job
        # The watcher before this one may have been killed.
        earlier = chronicle.history(time.monotonic()) if known and known.identity == root else None
        job = Job(root, care.run.job_exit)
        try:
            chronicle.found(JobRecord(root.pid, root.start_ticks, services.now()))
            chronicle.say(f"The job {root.pid} is watched; its snapshots go to the run {care.run.name}.")
            supervisor = Supervisor(care, Hands(snapshots, chronicle, signals), care.open_progress({}), services)
            ending = supervisor.look_after(job, earlier or remembered.started(time.monotonic()))
        finally:
            job.close()
        chronicle.remember(supervisor.history)
        return ended(care, _as_seen_from_outside(ending), chronicle).status


def _as_seen_from_outside(ending: Ending) -> Ending:
    """Only its parent learns how a process ended: that it is over is all that can be said."""
    if ending.state is RunState.DIED:
        return replace(ending, state=RunState.GONE, status=ExitStatus.DONE, job_status=None)
    return ending
