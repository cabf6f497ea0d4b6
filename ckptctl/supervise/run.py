"""A run from its beginning to its end: resumed or started, looked after, and what it ends with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from ckptctl.command import describe_status
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Notice
from ckptctl.files import make_private_folder
from ckptctl.interrupt import Terminated
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.schedule import history as remembered
from ckptctl.schedule.explain import explain
from ckptctl.schedule.history import History
from ckptctl.snapshot.services import Services
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.supervise import resume
from ckptctl.supervise.chronicle import Chronicle, Look
from ckptctl.supervise.claim import Claim, claim
from ckptctl.supervise.console import Console, Stream
from ckptctl.supervise.deaths import IN_A_ROW, is_loop
from ckptctl.supervise.diary import LOG_NAME, Diary
from ckptctl.supervise.exits import read_exit
from ckptctl.supervise.job import find_keeper
from ckptctl.supervise.notify import NotifyEvent
from ckptctl.supervise.plan import Care, Start
from ckptctl.supervise.reactions import AskedToStop, Signals
from ckptctl.supervise.resume import Beginning, Begun
from ckptctl.supervise.snapshots import Snapshots
from ckptctl.supervise.supervision import JobRecord, RunState
from ckptctl.supervise.supervisor import Ending, Hands, Supervisor, ending_of

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
    asked = replace(services, interrupt=AskedToStop(signals, care.reactions))
    try:
        with claim(care.store, care.run, asked) as ours:
            chronicle = Chronicle(care, wanted.command, services)
            before = _ended_before(care, chronicle, wanted, asked) if wanted.resume else None
            if before is not None:
                return before
            with listening(care):
                return _run_again_and_again(_Course(care, chronicle, asked, signals, ours), wanted)
    except Terminated as error:
        services.reporter.report(Notice(f"{error.message} {error.hint}"))
        return ExitStatus.TRY_AGAIN


@dataclass(frozen=True, slots=True)
class _Course:
    """A run that is looked after; `services` end what they do when a signal asks for it."""

    care: Care
    chronicle: Chronicle
    services: Services
    signals: Signals
    ours: Claim


def _command_before(chronicle: Chronicle) -> tuple[str, ...]:
    """What the run was started with; empty where it never was."""
    return () if chronicle.state.begun is None else chronicle.state.command


def _ended_before(care: Care, chronicle: Chronicle, wanted: Start, services: Services) -> int | None:
    """The exit status where nothing is to be run any more; None where there is.

    A job whose supervisor was killed may have come to its end since, and its keeper has written that down.
    """
    run = care.run
    if find_keeper(run) or chronicle.living:
        return None
    if chronicle.state.state in (RunState.RUNNING, RunState.LEFT):
        found = read_exit(run.job_exit)
        if found is not None:
            chronicle.say(f"The job of the run {run.name} has ended while nobody looked after it.")
            chronicle.looked(Look(care.open_progress({})(), ""))
            status = ended(care, ending_of(found), chronicle).status
            return status if status in (ExitStatus.DONE, ExitStatus.DO_NOT_REQUEUE) else None
    if chronicle.state.state is RunState.FINISHED:
        chronicle.say(f"The run {run.name} has come to its end already; --no-resume starts it from the beginning.")
        resume.say_other_job(_command_before(chronicle), chronicle.state.cwd, wanted, services)
        return ExitStatus.DONE
    return None


def _run_again_and_again(course: _Course, wanted: Start) -> int:
    left = wanted.restarts
    while True:
        ending = _run_once(course, wanted)
        if ending.state is not RunState.DIED or ending.status == ExitStatus.DO_NOT_REQUEUE or left <= 0:
            return ending.status
        left -= 1
        wanted = replace(wanted, resume=True)
        more = "once more" if left == 1 else f"{left} times more" if left else "not again after that"
        course.chronicle.say(f"The job is brought back ({more}).")


def _run_once(course: _Course, wanted: Start) -> Ending:
    """From the beginning of the job to its end, or until it is to be left alone."""
    care, chronicle, services = course.care, course.chronicle, course.services
    snapshots = Snapshots(care.store, care.run.name, care.manner, care.around.hooks, services)

    def on_root(root: ProcessId) -> None:
        chronicle.starts_anew(wanted.cwd, for_want_of_snapshots=wanted.resume)
        chronicle.began(JobRecord(root.pid, root.start_ticks, services.now()), Progress())

    former, cwd = _command_before(chronicle), chronicle.state.cwd
    before = resume.Before(frozenset(chronicle.state.outdated), former, chronicle.living, on_root, cwd)
    asked = replace(snapshots.services(), interrupt=services.interrupt)
    try:
        begun = resume.begin(care, wanted, asked, before)
    except CkptctlError as error:
        chronicle.could_not_begin(error)
        raise
    root = begun.job.root
    record = JobRecord(root.pid, root.start_ticks, services.now(), begun.snapshot_id)
    chronicle.began(record, begun.progress or Progress())
    if begun.how is Beginning.RESTORED:
        chronicle.tell(NotifyEvent.RESUMED, f"The job goes on from {begun.snapshot_id}.")
    # What an earlier course of the run has left in its logs says nothing of this one.
    read_progress = care.open_progress(begun.shown_from if begun.how is Beginning.STARTED else {})
    supervisor = Supervisor(care, Hands(snapshots, chronicle, course.signals, course.ours), read_progress, services)
    history = history_of(care, begun, chronicle)
    chronicle.say(" ".join(explain(care.policy, history)))
    try:
        with _shown(care, begun, wanted):
            ending = supervisor.look_after(begun.job, history)
        if ending.taken_over:
            # This machine has slept, or was cut off from the store: the run goes on elsewhere.
            begun.job.end(0)
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
    if ending.taken_over:
        # The record is that machine's now.
        chronicle.say("The run was taken over by another machine, which took this one for dead: it is left to that.")
        return ending
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
            text = f"{text} That was the {IN_A_ROW}rd time in a row{where}: starting it again will not help."
            chronicle.alert("W_CRASH_LOOP", text, NotifyEvent.CRASH_LOOP)
            chronicle.forget_deaths()
            return replace(ending, status=ExitStatus.DO_NOT_REQUEUE)
        chronicle.alert("W_JOB_DIED", text, NotifyEvent.ENDED)
    elif ending.status == ExitStatus.TRY_AGAIN:
        chronicle.say(f"The run {run} has been stopped; the same command goes on with it.")
    return ending


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
