"""What happens to a run, told to everyone who wants to know: the record for `status`, people, Prometheus."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Notice
from ckptctl.files import NoSpace, free_bytes
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.schedule.history import History
from ckptctl.schedule.kept import kept, recalled
from ckptctl.snapshot.dump_request import DumpReport
from ckptctl.snapshot.outcome import JobLost
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.space import REMEDY
from ckptctl.snapshot.standing import JobLeft
from ckptctl.store.catalog import list_ids
from ckptctl.store.manifest import Progress
from ckptctl.supervise import supervision
from ckptctl.supervise.launch import ProgramNotExecutable, ProgramNotFound
from ckptctl.supervise.notify import Notification, NotifyEvent
from ckptctl.supervise.plan import Care
from ckptctl.supervise.prometheus import RunFacts
from ckptctl.supervise.snapshots import Order, paused_s
from ckptctl.supervise.supervision import Alert, Death, JobRecord, RunState, Sample, Saved, Supervision
from ckptctl.units import format_size

_WRITE_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of the job, and what the schedule makes of it."""

    progress: Progress
    next_due: str
    next_due_in_s: float | None = None


class Chronicle:
    """Keeps `supervision.json` of a run up to date. A disk that is full ends no supervision: it is said once."""

    def __init__(self, care: Care, command: tuple[str, ...], services: Services) -> None:
        """What an earlier supervisor wrote down of the run is gone on with. Raises FileTrouble.

        A record that cannot be read is put aside, which is said: it must not keep a run from going on.
        """
        self._care = care
        self._command = command
        self._services = services
        self._written_s = -math.inf
        self._cannot_write = False
        self._disk_is_low = False
        self._next_due_s: float | None = None
        self._report: DumpReport | None = None
        earlier = self._earlier()
        fresh = Supervision(care.run.name, command, RunState.RUNNING, services.owner, services.now())
        self.state = fresh if earlier is None else dataclasses.replace(earlier, supervisor=services.owner)
        here, then = services.owner, earlier.supervisor if earlier else services.owner
        self._pids_hold = (then.boot_id, then.pid_namespace) == (here.boot_id, here.pid_namespace)

    def _earlier(self) -> Supervision | None:
        path = self._care.run.supervision
        try:
            return supervision.read(path)
        except supervision.SupervisionDamaged as error:
            aside = supervision.put_aside(path)
            text = f"{error.message} It is kept as {aside.name}, and the run goes on without it."
            self._services.reporter.report(Caution(text, error.code))
            return None

    @property
    def living(self) -> ProcessId | None:
        """The root of the job as it was written down, if that lives."""
        job = self.state.job
        if job is None or not self._pids_hold or control.standing(job.identity).gone:
            return None
        return job.identity

    def starts_anew(self, cwd: Path, *, for_want_of_snapshots: bool) -> None:
        """The job is about to start from the beginning in `cwd`: what happened before says nothing any more.

        But that it died counts where nobody wanted this: it may do so before its first snapshot each time.
        """
        self._change(
            begun=self._services.now(),
            cwd=str(cwd),
            outdated=list_ids(self._care.run),
            command=self._command,
            deaths=self.state.deaths if for_want_of_snapshots else (),
            samples=(),
            last=None,
        )

    def began(self, job: JobRecord, progress: Progress) -> None:
        """The job runs. One that ran before its supervisor did keeps its record."""
        known = self.state.job
        same = known is not None and known.identity == job.identity
        self._pids_hold = True
        self._change(state=RunState.RUNNING, job=known if same else job, exit_status=None, progress=progress)

    def found(self, job: JobRecord) -> None:
        """A job that others have started is looked after."""
        self._change(command=self._command)
        self.began(job, Progress())

    def looked(self, look: Look) -> None:
        """The job was looked at; written down every few seconds, and at once when its step is first known."""
        self._next_due_s = look.next_due_in_s
        if self.state.progress.step is None and look.progress.step is not None:
            self._written_s = -math.inf
        self.state = dataclasses.replace(self.state, progress=look.progress, next_due=look.next_due)
        if self._services.clock() - self._written_s >= _WRITE_EVERY_S:
            self.write()

    def sampled(self, memory_bytes: int, gpu_bytes: int | None) -> None:
        """The job's memory was measured."""
        progress, metric = self.state.progress, self._care.metric
        loss = progress.metrics.get(metric) if metric else None
        self.state = self.state.with_sample(Sample(self._services.now(), memory_bytes, gpu_bytes, progress.step, loss))

    def saved(self, report: DumpReport, order: Order, took_s: float) -> None:
        """A snapshot is complete."""
        self._report = report
        last = Saved(
            id=report.id,
            when=self._services.now(),
            reason=order.reason,
            paused_s=paused_s(report),
            took_s=took_s,
            size_bytes=report.image_bytes,
            step=report.progress.step,
        )
        progress = self.state.progress if report.progress.source is None else report.progress
        self._change(last=last, progress=progress, snapshots_count=self.state.snapshots_count + 1, next_due="")
        self._written_s = -math.inf  # the next look knows when the next one is due

    def failed(self, error: CkptctlError, then: str) -> None:
        """A snapshot failed; `then` says what comes next, empty where that is said otherwise.

        That the job runs on is not said, for it is looked after and may be about to end.
        """
        hint = f" {error.hint}" if error.hint else ""
        outcome = f" {error.outcome}" if error.outcome and isinstance(error, (JobLeft, JobLost)) else ""
        self.state = dataclasses.replace(self.state, failures_count=self.state.failures_count + 1)
        self.alert(error.code, f"{error.message}{outcome}{hint} {then}".rstrip(), NotifyEvent.FAILURE)
        if isinstance(error, NoSpace) and not self._disk_is_low:
            self._disk_is_low = True
            self.tell(NotifyEvent.DISK_LOW, f"There is no room for snapshots. {error.message}{hint}")

    def needs(self, size_bytes: int) -> None:
        """Snapshots take so much now. That there is no room for another one is told once, until there is room again."""
        left_bytes = _free_bytes(self._care)
        if left_bytes is None:
            return
        is_low = left_bytes < size_bytes
        if is_low and not self._disk_is_low:
            left = f"it took {format_size(size_bytes)}, and {self._care.store.path} has {format_size(left_bytes)} left"
            text = f"There is no room for another snapshot like the last one: {left}. {REMEDY}"
            self.alert("W_DISK_LOW", text, NotifyEvent.DISK_LOW)
        self._disk_is_low = is_low

    def alert(self, code: str, text: str, event: NotifyEvent | None = None) -> None:
        """Something that a person should know of."""
        self._services.reporter.report(Caution(text, code))
        self.state = self.state.with_alert(Alert(self._services.now(), code, text))
        self.write()
        if event is not None:
            self.tell(event, text)

    def say(self, text: str, event: NotifyEvent | None = None) -> None:
        """Something that is as it should be."""
        self._services.reporter.report(Notice(text))
        if event is not None:
            self.tell(event, text)

    def died(self, status: int) -> None:
        """The job has ended by itself, and not well."""
        job, last = self.state.job, self.state.last
        restored_from = job.restored_from if job else None
        goes_back_to = last.id if last else restored_from
        death = Death(self._services.now(), status, self.state.progress.step, goes_back_to)
        self.state = self.state.with_death(death)

    def history(self, now_s: float) -> History | None:
        """What the schedule remembered when the supervisor before this one ended, its times on the clock of now."""
        written = self.state.schedule
        return None if written is None else recalled(written, self._services.owner.boot_id, now_s)

    def remember(self, history: History) -> None:
        """What the schedule remembers, for the supervisor that comes next; written down with the next change."""
        self.state = dataclasses.replace(self.state, schedule=kept(history, self._services.owner.boot_id))

    def ending(self) -> None:
        """The job is about to be ended on request: that it then ends well must not be taken for the end of its work."""
        self._change(state=RunState.STOPPED)

    def could_not_begin(self, error: CkptctlError) -> None:
        """The job does not run, as far as anybody knows; whoever has the error says it."""
        if self.state.state is not RunState.RUNNING:
            return
        no_program = isinstance(error, (ProgramNotFound, ProgramNotExecutable))
        if no_program:
            self.state = self.state.with_alert(Alert(self._services.now(), error.code, error.message))
        self._change(state=RunState.NOT_STARTED if no_program else RunState.STOPPED, job=None)

    def forget_deaths(self) -> None:
        """A person has been told of them; whoever starts the run again has mended it."""
        self._change(deaths=())

    def ended(self, state: RunState, status: int | None) -> None:
        """The supervision is over, and so is the job, unless it is left to run on."""
        job = self.state.job if state is RunState.LEFT else None
        self._change(state=state, job=job, exit_status=status, next_due="")

    def tell(self, event: NotifyEvent, text: str) -> None:
        """Notify whoever asked for this event."""
        progress, last = self.state.progress, self.state.last
        facts = (("step", progress.step), ("epoch", progress.epoch), ("snapshot", last.id if last else None))
        at_s = self._services.now().timestamp()
        host = self._services.machine.hostname
        self._care.around.notifier.send(Notification(event, self._care.run.name, host, text, at_s, facts))

    def write(self) -> None:
        """Write the record and the metrics now."""
        self._written_s = self._services.clock()
        self.state = dataclasses.replace(self.state, updated=self._services.now())
        try:
            supervision.write(self._care.run.supervision, self.state)
            self._cannot_write = False
        except CkptctlError as error:
            if not self._cannot_write:
                self._services.reporter.report(Caution(error.message, error.code))
            self._cannot_write = True
        if self._care.around.metrics is not None:
            self._care.around.metrics.write(self._facts())

    def _change(self, **changes: object) -> None:
        self.state = dataclasses.replace(self.state, **changes)  # type: ignore[arg-type]
        self.write()

    def _facts(self) -> RunFacts:
        state, report = self.state, self._report
        return RunFacts(
            run=state.run,
            running=state.state is RunState.RUNNING,
            snapshots_count=state.snapshots_count,
            failures_count=state.failures_count,
            last_success_s=state.last.when.timestamp() if state.last else None,
            phases_s=tuple((one.name, one.seconds) for one in report.timings) if report else (),
            frozen_s=state.last.paused_s if state.last else None,
            snapshot_bytes=state.last.size_bytes if state.last else None,
            next_due_s=None if self._next_due_s is None else state.updated.timestamp() + self._next_due_s,
            step=state.progress.step,
            epoch=state.progress.epoch,
            metrics=tuple(sorted(state.progress.metrics.items())),
            store_free_bytes=_free_bytes(self._care),
        )


def _free_bytes(care: Care) -> int | None:
    try:
        return free_bytes(care.store.path)
    except OSError:
        return None
