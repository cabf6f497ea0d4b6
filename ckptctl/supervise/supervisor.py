"""Looking after a job that runs: snapshots when they are due, and what signals and notices ask for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ckptctl.command import describe_status
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.schedule.alerts import Alert, AlertCode
from ckptctl.schedule.conditions import retry_after_s
from ckptctl.schedule.decision import decide, fresh_alerts, observed, told
from ckptctl.schedule.history import History, Taken, snapshot_ended, snapshot_failed
from ckptctl.schedule.observation import Observation, Request
from ckptctl.schedule.wording import brief
from ckptctl.snapshot.recover import recover
from ckptctl.snapshot.retention import apply_retention
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.standing import JobLeft
from ckptctl.store import links, manifest_json
from ckptctl.store.catalog import list_ids
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.supervise.chronicle import Chronicle, Look
from ckptctl.supervise.claim import Claim
from ckptctl.supervise.exits import JobExit
from ckptctl.supervise.gauges import Gauges
from ckptctl.supervise.job import Job, end_all, find_keeper, find_strays
from ckptctl.supervise.notices.notice import Notice as Warned
from ckptctl.supervise.notify import NotifyEvent
from ckptctl.supervise.plan import Care
from ckptctl.supervise.reactions import Reaction, Signals
from ckptctl.supervise.recompressing import Recompressing
from ckptctl.supervise.snapshots import GaveWay, Order, Prevented, Snapshots, paused_s
from ckptctl.supervise.supervision import NOT_SAVED, RunState
from ckptctl.units import format_duration

_TICK_S: Final = 0.1
# A keeper that has written down how its job ended is about to end too.
_ENDING_S: Final = 0.5
_LOOK_EVERY_S: Final = 0.25
_SAMPLE_EVERY_S: Final = 15.0
# A snapshot may take longer than the longest before it: the job grows, the disk is shared.
_SLOWER: Final = 1.5
_MARGIN_S: Final = 2.0
# What is left of the time goes to hooks, but not all of it.
_SHARE_OF_HOOKS: Final = 0.25
_TOLD_AS: Final = {AlertCode.NO_PROGRESS: NotifyEvent.HUNG}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the supervision ended, and ckptctl's exit status. `job_status`: how the job ended, -N for signal N."""

    state: RunState
    status: int
    job_status: int | None = None
    taken_over: bool = False
    """A supervisor on another machine has the run now: nothing more is written down of it here."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What a supervisor works with: who takes snapshots, who is told of everything, what it is asked for, and whether
    the run is still ours.
    """

    snapshots: Snapshots
    chronicle: Chronicle
    signals: Signals
    ours: Claim


class Supervisor:
    """Looks after one job until it ends, or is to be left."""

    def __init__(self, care: Care, hands: Hands, read_progress: Callable[[], Progress], services: Services) -> None:
        self._care = care
        self._snapshots = hands.snapshots
        self._chronicle = hands.chronicle
        self._signals = hands.signals
        self._ours = hands.ours
        self._services = services
        self._read_progress = read_progress
        self._requested: Request | None = None
        self._noticed: Warned | None = None
        self._stays = False  # the file that asks for a snapshot
        self._next_look_s = self._next_sample_s = 0.0
        self._adopted: frozenset[ProcessId] = frozenset()
        self._smaller = Recompressing(care.recompression, care.store, care.run, self._not_smaller)

    def look_after(self, job: Job, history: History) -> Ending:
        """Until the job ends, by itself or at our hands, or is left alone. Raises FileTrouble of what the job left."""
        self.history = history
        self._gauges = Gauges(job.root, self._services)
        with self._smaller:
            while not job.ended(_TICK_S):
                ending = self._react(job)
                if ending is not None:
                    return ending
                if time.monotonic() >= self._next_look_s:
                    if self._ours.is_lost():
                        return Ending(RunState.LEFT, ExitStatus.LOCKED, taken_over=True)
                    self._look(job)
                    self._next_look_s = time.monotonic() + _LOOK_EVERY_S
        ending = self._ended_by_itself(job)
        asked = any(reaction.ends_the_job for reaction in self._asked_for())
        return self._as_asked(ending) if asked else ending

    # What is due.

    def _look(self, job: Job) -> None:
        care, now_s = self._care, time.monotonic()
        if self._is_asked_by_file():
            self._requested = Request.FILE
        gpu_bytes = self._gauges.gpu_bytes() if care.policy.when_gpu_stable else None
        observation = Observation(now_s, self._read_progress(), gpu_bytes, self._requested)
        self.history = observed(care.policy, self.history, observation)
        decision = decide(care.policy, self.history, observation)
        self._tell(fresh_alerts(self.history, decision))
        self._chronicle.remember(self.history)
        self._chronicle.looked(Look(observation.progress, decision.outlook.words, decision.outlook.in_s))
        self._sample(now_s)
        self._smaller.look()
        if decision.due:
            if self._requested in (Request.SIGNAL, Request.NOTICE):
                self._smaller.stop()  # somebody waits for this one
            self._requested = None
            self._take(job, Order(decision.note, observation.progress, self._read_progress, give_up=self._is_over))

    def _is_asked_by_file(self) -> bool:
        """Whether somebody has created the file that asks for a snapshot; it is taken away."""
        asked = self._care.run.snapshot_request
        try:
            asked.unlink()
        except FileNotFoundError:
            self._stays = False
            return False
        except OSError as error:
            if not self._stays:
                text = f"{asked} cannot be removed ({error.strerror}): one snapshot is taken for it, and no more."
                self._chronicle.alert("W_REQUEST", text)
            stayed, self._stays = self._stays, True
            return not stayed
        return True

    def _tell(self, alerts: tuple[Alert, ...]) -> None:
        for alert in alerts:
            # That a snapshot failed was told when it happened.
            if alert.code is not AlertCode.SNAPSHOT_FAILED:
                self._chronicle.alert(alert.code.value, alert.words, _TOLD_AS.get(alert.code))
        self.history = told(self.history, alerts)

    def _sample(self, now_s: float) -> None:
        if now_s >= self._next_sample_s:
            self._next_sample_s = now_s + _SAMPLE_EVERY_S
            self._chronicle.sampled(self._gauges.memory_bytes(), self._gauges.gpu_bytes())
            # Hooks may leave processes behind, whose pids a job may need at its next resume.
            self._adopted = control.reap_adopted(self._adopted)

    def _take(self, job: Job, order: Order) -> CkptctlError | None:
        """Take a snapshot; what went wrong is told and returned."""
        began_s = time.monotonic()
        try:
            report = self._snapshots.take(job.root, order)
        except GaveWay as error:
            self._chronicle.say(error.message)  # what was more urgent is looked at next
            return error
        except CkptctlError as error:
            if job.ended(_ENDING_S):
                return error  # it came to its end meanwhile, which is looked at next
            self.history = snapshot_failed(self.history, time.monotonic(), error.message)
            self._chronicle.remember(self.history)
            again = brief(retry_after_s(self.history.failures.count)) if self.history.failures else ""
            self._chronicle.failed(error, "" if order.last else f"The next one is tried in {again}.")
            if not isinstance(error, Prevented):
                self._mend()
            return error
        ended_s = time.monotonic()
        taken = Taken(began_s, ended_s, report.progress, paused_s(report))
        self.history = snapshot_ended(self._care.policy, self.history, taken)
        self._chronicle.remember(self.history)
        self._chronicle.saved(report, order, ended_s - began_s)
        step = f"step {report.progress.step}"
        at = "" if report.progress.step is None or step in order.reason else f" at {step}"
        stood = format_duration(paused_s(report))
        self._chronicle.say(f"Snapshot {report.id}{at} ({order.reason}). The job stood still for {stood}.")
        self._retain()
        self._chronicle.needs(report.contents_bytes)
        if not order.last:
            self._smaller.start(report.contents_bytes)
        return None

    def _not_smaller(self, text: str) -> None:
        self._chronicle.alert("W_RECOMPRESS", text)

    def _mend(self) -> None:
        """Try once more to take back what could not be; this process will not end for a long time."""
        try:
            recover(self._snapshots.services())
        except CkptctlError as error:
            self._chronicle.alert(error.code, f"What the failed snapshot left is not mended yet: {error.message}")

    def _retain(self) -> None:
        """Let go what is not to be kept."""
        care = self._care
        done = apply_retention(care.store, care.run.name, care.manner.retention, self._snapshots.services())
        if done.problems:
            self._chronicle.alert("W_RETENTION", f"Old snapshots stay: {' '.join(done.problems)}")

    # What is asked for.

    def _react(self, job: Job) -> Ending | None:
        number = self._signals.take()
        if number is not None:
            return self._react_to(number, job)
        notice = self._pressing()
        if notice is None:
            return None
        self._noticed = notice
        left_s = notice.seconds_left(self._services.now().timestamp())
        if not notice.kind.ends_the_job:
            self._chronicle.say(f"Notice ({notice.source}): {notice.words} A snapshot is taken.")
            self._requested, self._next_look_s = Request.NOTICE, 0.0
            return None
        left_s, known = (self._care.grace_s, "at the most") if left_s is None else (left_s, "left")
        text = f"Notice ({notice.source}): {notice.words} A last snapshot is taken, then the job is ended"
        self._chronicle.alert("W_PREEMPTED", f"{text}; {format_duration(left_s)} {known}.", NotifyEvent.PREEMPTED)
        return self._save_and_stop(job, f"a notice of {notice.source}", left_s)

    def _react_to(self, number: signal.Signals, job: Job) -> Ending | None:
        reaction = self._care.reactions[number]
        if reaction is Reaction.PASS_ON:
            job.send(number)
        elif reaction is Reaction.DUMP:
            self._requested, self._next_look_s = Request.SIGNAL, 0.0
        elif reaction is Reaction.LEAVE:
            text = f"{number.name}: the job runs on (pid {job.root.pid}), and nobody looks after it."
            self._chronicle.say(text)
            return Ending(RunState.LEFT, ExitStatus.DONE)
        elif reaction is Reaction.STOP:
            self._chronicle.say(f"{number.name}: the job is ended.")
            return self._stop(job, self._care.grace_s)
        elif reaction is Reaction.DUMP_AND_STOP:
            text = f"{number.name}: a last snapshot is taken, then the job is ended."
            self._chronicle.say(text, NotifyEvent.PREEMPTED)
            return self._save_and_stop(job, number.name, self._care.grace_s)
        return None

    def _asked_for(self) -> Iterator[Reaction]:
        """What the signals ask for that nobody has reacted to yet."""
        return (self._care.reactions[number] for number in self._signals.received())

    def _is_over(self) -> bool:
        """Whether the job or its supervision is about to end, so that no hook of another snapshot is waited for."""
        notice = self._pressing()
        ending = notice is not None and notice.kind.ends_the_job
        return ending or any(reaction.ends_the_supervision for reaction in self._asked_for())

    def _pressing(self) -> Warned | None:
        """The notice to act on now; None where there is none, or only one that was acted on."""
        notice = self._care.around.notices.latest()
        return None if notice is None or notice == self._noticed or not self._is_time_for(notice) else notice

    def _is_time_for(self, notice: Warned) -> bool:
        """Whether to act on a notice now: one of maintenance may come days before."""
        left_s = notice.seconds_left(self._services.now().timestamp())
        if left_s is None or not notice.kind.ends_the_job:
            return True
        return left_s <= max(self._care.grace_s, _needed_s(self._longest_s() or 0.0) * _SLOWER)

    def _save_and_stop(self, job: Job, cause: str, left_s: float) -> Ending:
        """A last snapshot if it fits the time, then the end of the job, unless it would be lost with that."""
        until_s = time.monotonic() + left_s
        self._smaller.stop()
        longest_s = self._longest_s()
        if longest_s is not None and _needed_s(longest_s) > left_s and self._newest_id() is not None:
            took = f"one took {format_duration(longest_s)} before, and there are {format_duration(left_s)} left"
            self._chronicle.alert("W_NO_TIME", f"No last snapshot is begun: {took}. {self._lost_with_the_end()}")
            return self._stop(job, left_s)
        read, limit_s = self._read_progress, left_s * _SHARE_OF_HOOKS
        order = Order(cause, read(), read, last=True, limit_s=limit_s)
        error = self._take(job, order)
        if isinstance(error, JobLeft):
            # What it would do from here on is not in its snapshot, and would be done twice.
            return replace(self._stop(job, 0.0), state=RunState.SAVED)
        if error is None:
            # It has ended with its snapshot; what is waited for is that its parent, maybe we, has noticed.
            job.ended(_MARGIN_S)
            return Ending(RunState.SAVED, ExitStatus.TRY_AGAIN)
        if job.ended(0):
            return self._as_asked(self._ended_by_itself(job))
        if self._newest_id() is None:
            text = f"The job has no snapshot, so it is not ended: it runs on (pid {job.root.pid}), to be taken over."
            self._chronicle.alert("W_LEFT", text)
            return Ending(RunState.LEFT, error.exit_status)
        self._chronicle.alert(NOT_SAVED, self._lost_with_the_end())
        return self._stop(job, max(0.0, until_s - time.monotonic()))

    def _lost_with_the_end(self) -> str:
        """What a job that is ended without a snapshot has to do again."""
        found, reached = self._newest_id(), self._read_progress().step
        saved = _step_of(self._care.run, found)
        if saved is None or reached is None:
            return f"The job ends without a new snapshot: it goes on from {found}, and does again what it did since."
        again = {0: "nothing is", 1: "one step is"}.get(reached - saved, f"{reached - saved} steps are")
        return f"The job ends without a new snapshot: it goes on from step {saved}, and {again} done again ({found})."

    def _stop(self, job: Job, grace_s: float) -> Ending:
        self._chronicle.ending()
        gone = job.end(grace_s)
        if not self._end_strays() or not gone:
            text = f"The job (pid {job.root.pid}) does not end: its processes wait inside the kernel."
            self._chronicle.alert("W_JOB_LEFT", text)
        found = job.exit()
        # A job that answers SIGTERM with the status 0 has not done its work.
        return Ending(RunState.STOPPED, ExitStatus.TRY_AGAIN, found.status if found else None)

    def _ended_by_itself(self, job: Job) -> Ending:
        found = job.exit()
        if found is not None:
            self._read_last_progress()
            return ending_of(found)
        saved = self._saved_by_others()
        if saved is not None:
            self._chronicle.say(f"Another ckptctl has saved the job and ended it: {saved}.")
            return Ending(RunState.SAVED, ExitStatus.TRY_AGAIN)
        # Whoever killed the keeper killed what could have told, and maybe not what it kept. One that could not write,
        # on a full disk perhaps, has at least ended as its job did.
        self._end_strays()
        return ending_with(-signal.SIGKILL if job.root_status is None else job.root_status)

    def _end_strays(self) -> bool:
        """End what lost its keeper; False where something of it is still there. Another job of this run has its own."""
        return find_keeper(self._care.run) is not None or end_all(find_strays(self._care.run))

    def _saved_by_others(self) -> str | None:
        """The snapshot with which somebody else has just ended the job; it may not be named `latest` yet."""
        newest = max(list_ids(self._care.run), default=None)
        job, last = self._chronicle.state.job, self._chronicle.state.last
        if newest is None or job is None or newest in (last and last.id, job.restored_from):
            return None
        try:
            found = manifest_json.read(self._care.run.snapshot(newest).manifest)
        except CkptctlError:
            return None
        return newest if found.ended and found.created >= job.started else None

    def _read_last_progress(self) -> None:
        """What the job reported in the last moments of its life."""
        self._chronicle.looked(Look(self._read_progress(), ""))

    def _as_asked(self, ending: Ending) -> Ending:
        """The ending of a job that was to be stopped just then: whoever asked us may have asked it too.

        Where it had come to its end without that, it is brought back to come to it once more, which does no harm.
        """
        if ending.state not in (RunState.FINISHED, RunState.DIED):
            return ending
        how = describe_status(ending.job_status or 0)
        self._chronicle.say(f"The job ended with {how} when it was to be stopped, and may not have done its work.")
        return replace(ending, state=RunState.STOPPED, status=ExitStatus.TRY_AGAIN)

    def _longest_s(self) -> float | None:
        """How long a snapshot of this job has taken at the most; None where none was taken."""
        return max((cost.duration_s for cost in self.history.costs), default=None)

    def _newest_id(self) -> str | None:
        """The newest snapshot from which the job can be brought back."""
        found = links.target(self._care.run, self._care.run.latest)
        return None if found in self._chronicle.state.outdated else found


def _step_of(run: RunFolder, snapshot: str | None) -> int | None:
    """The step of a snapshot, where that can be read and has one."""
    with suppress(CkptctlError):
        return manifest_json.read(run.snapshot(snapshot).manifest).progress.step if snapshot else None
    return None


def ending_of(found: JobExit) -> Ending:
    """The ending of a job that has ended by itself."""
    return ending_with(found.status)


def ending_with(status: int) -> Ending:
    """The same from its exit status, -N for signal N."""
    state = RunState.FINISHED if status == 0 else RunState.DIED
    return Ending(state, status if status >= 0 else 128 - status, status)


def _needed_s(longest_s: float) -> float:
    """How long a snapshot may take where the longest before took so long."""
    return longest_s * _SLOWER + _MARGIN_S
