"""A run from its beginning to its end: resumed or started, looked after, and what it ends with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ckptctl.command import describe_status
from ckptctl.errors import ExitStatus
from ckptctl.files import make_private_folder
from ckptctl.interrupt import Terminated
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.schedule import history as remembered
from ckptctl.schedule.history import History
from ckptctl.snapshot.services import Services
from ckptctl.store import locks
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.supervise import resume
from ckptctl.supervise.chronicle import Chronicle
from ckptctl.supervise.console import Console, Stream
from ckptctl.supervise.deaths import IN_A_ROW, is_loop
from ckptctl.supervise.diary import LOG_NAME, Diary
from ckptctl.supervise.notify import NotifyEvent
from ckptctl.supervise.plan import Care, Start
from ckptctl.supervise.reactions import AskedToStop, Signals
from ckptctl.supervise.resume import Beginning, Begun
from ckptctl.supervise.snapshots import Snapshots
from ckptctl.supervise.supervision import JobRecord, RunState
from ckptctl.supervise.supervisor import Ending, Supervisor

_PARTING_S: Final = 10.0


def supervised(run: RunFolder, services: Services) -> Services:
    """The services for weeks of supervision: what is said goes to the run's log too."""
    make_private_folder(run.path)
    make_private_folder(run.output)
    return replace(services, reporter=Diary(services.reporter, run.output / LOG_NAME, services.now))


def run(care: Care, wanted: Start, services: Services, signals: Signals) -> int:
    """Start or resume the job and look after it; returns the exit status of ckptctl.

    Raises Locked where another ckptctl looks after the run, and what `resume.begin` raises.
    """
    # Ended processes of the job must not keep its pids from the next restore.
    control.adopt_orphans()
    with alone(care, services):
        chronicle = Chronicle(care, wanted.command, services)
        if wanted.resume and chronicle.state.state is RunState.FINISHED:
            chronicle.say(f"The run {care.run.name} has come to its end already; --no-resume starts it anew.")
            return ExitStatus.DONE
        with listening(care):
            return _run_again_and_again(care, wanted, chronicle, services, signals)


def _run_again_and_again(care: Care, wanted: Start, chronicle: Chronicle, services: Services, signals: Signals) -> int:
    left = wanted.restarts
    while True:
        ending = _run_once(care, wanted, chronicle, services, signals)
        if ending.state is not RunState.DIED or ending.status == ExitStatus.DO_NOT_REQUEUE or left <= 0:
            return ending.status
        left -= 1
        wanted = replace(wanted, resume=True)
        chronicle.say(f"The job is brought back; {left} more times at the most.")


def _run_once(care: Care, wanted: Start, chronicle: Chronicle, services: Services, signals: Signals) -> Ending:
    """From the beginning of the job to its end, or until it is to be left alone."""
    snapshots = Snapshots(care.store, care.run.name, care.manner, care.around.hooks, services)

    def on_root(root: ProcessId) -> None:
        chronicle.starts_anew()
        chronicle.began(JobRecord(root.pid, root.start_ticks, services.now()), Progress())

    asked = AskedToStop(signals, care.reactions)
    try:
        services_now = replace(snapshots.services(), interrupt=asked)
        begun = resume.begin(care, wanted, services_now, resume.Before(chronicle.state.begun, on_root))
    except Terminated as error:
        chronicle.say(
            f"{error.message} The job of the run {care.run.name} does not run; the same command brings it back."
        )
        return Ending(RunState.STOPPED, ExitStatus.TRY_AGAIN)
    progress = begun.progress or Progress()
    root = begun.job.root
    chronicle.began(JobRecord(root.pid, root.start_ticks, services.now(), begun.snapshot_id), progress)
    if begun.how is Beginning.RESTORED:
        chronicle.tell(NotifyEvent.RESUMED, f"The job goes on from {begun.snapshot_id}.")
    supervisor = Supervisor(care, snapshots, chronicle, signals, services)
    history = history_of(care, begun, chronicle)
    try:
        with _shown(care, begun, wanted):
            ending = supervisor.look_after(begun.job, history)
    finally:
        begun.job.close()
    chronicle.remember(supervisor.history)
    return ended(care, ending, chronicle)


def history_of(care: Care, begun: Begun, chronicle: Chronicle) -> History:
    now_s = time.monotonic()
    earlier = chronicle.history(now_s)
    if begun.how is Beginning.RESTORED:
        return remembered.resumed(care.policy, earlier, now_s, begun.progress or Progress())
    if begun.how is Beginning.TAKEN_OVER and earlier is not None:
        return earlier
    return remembered.started(now_s, earlier)


def ended(care: Care, ending: Ending, chronicle: Chronicle) -> Ending:
    """Say how the job ended, and stop a run that dies at the same place again and again."""
    run = care.run.name
    if ending.state is RunState.DIED:
        assert ending.job_status is not None
        chronicle.died(ending.job_status)
    chronicle.ended(ending.state, ending.job_status)
    if ending.state is RunState.FINISHED:
        chronicle.say(f"The run {run} has come to its end.", NotifyEvent.ENDED)
    elif ending.state is RunState.DIED:
        text = f"The job of the run {run} ended with {describe_status(ending.job_status or 0)}."
        if is_loop(chronicle.state.deaths):
            step = chronicle.state.deaths[-1].step
            where = f" at step {step}" if step is not None else ""
            text = f"{text} That was the {IN_A_ROW}rd time in a row{where}: it is not to be started again like this."
            chronicle.alert("W_CRASH_LOOP", text, NotifyEvent.CRASH_LOOP)
            chronicle.forget_deaths()
            return replace(ending, status=ExitStatus.DO_NOT_REQUEUE)
        chronicle.alert("W_JOB_DIED", text, NotifyEvent.ENDED)
    elif ending.status == ExitStatus.TRY_AGAIN:
        chronicle.say(f"The run {run} has been stopped; the same command goes on with it.")
    return ending


@contextmanager
def alone(care: Care, services: Services) -> Iterator[None]:
    """Be the only supervisor of the run, on all machines that share the store. Raises Locked."""
    want = [locks.Want(f"supervisor:{care.run.name}", locks.Intent.EXCLUSIVE)]
    wait_s, interrupt = services.lock_wait_s, services.interrupt
    with locks.hold(care.store.locks, want, services.owner, wait_s=wait_s, interrupt=interrupt):
        yield


@contextmanager
def listening(care: Care) -> Iterator[None]:
    """Watch for notices meanwhile; give notifications under way some time at the end."""
    care.around.notices.start()
    try:
        yield
    finally:
        care.around.notices.stop()
        care.around.notifier.close(_PARTING_S)


@contextmanager
def _shown(care: Care, begun: Begun, wanted: Start) -> Iterator[None]:
    """What the job writes appears here too, to the end."""
    if not wanted.show_output:
        yield
        return
    streams = [Stream(care.run.stdout, 1), Stream(care.run.stderr, 2)]
    console = Console(streams, begun.shown_from).start()
    try:
        yield
    finally:
        console.stop()
