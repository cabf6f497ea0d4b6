"""Taking every run off this host for maintenance: each is saved and ended, and none is started meanwhile."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from ckptctl.errors import CkptctlError
from ckptctl.events import Notice
from ckptctl.interrupt import Interrupted, Terminated
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot.dump_request import DumpRequest, StoreTarget
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.ways import Way
from ckptctl.store import links
from ckptctl.store.layout import Store
from ckptctl.store.owner import Liveness, Owner
from ckptctl.supervise import duty as duties
from ckptctl.supervise import supervision
from ckptctl.supervise.duty import Drain, Duty
from ckptctl.supervise.supervision import NOT_SAVED, RunState, Supervision

_TICK_S: Final = 0.2
_NOTE: Final = "drain"


class Result(StrEnum):
    """What became of a run."""

    SAVED = "saved"  # and ended
    ENDED = "ended"  # by itself, before it could be saved
    UNSAVED = "unsaved"  # ended without a last snapshot
    RUNS = "runs"  # it could not be stopped
    WOULD_STOP = "would stop"


@dataclass(frozen=True, slots=True)
class Drained:
    """A run that was on this host."""

    run: Annotated[str, "its name"]
    store: Annotated[str, "the store that it belongs to"]
    result: Annotated[Result, "what became of it"]
    snapshot: Annotated[str | None, "the snapshot that it goes on from"]
    text: Annotated[str, "the same in words, and why"]

    @property
    def as_wanted(self) -> bool:
        """Whether nothing is lost and nothing is left."""
        return self.result not in (Result.UNSAVED, Result.RUNS)


def drain(reason: str, limit_s: float, way: Way, services: Services) -> tuple[Drained, ...]:
    """Refuse new runs from here on, save and end those that there are; ends when all are, or after `limit_s` seconds.

    What was stopped is written down for `bring_back`, beforehand. Run again it goes on. A run that cannot be stopped
    runs on and is said. Raises FileTrouble, NoSpace, DutyDamaged, Interrupted, Terminated.
    """
    duties.mark_drained(services.host_state, Drain(services.now(), services.owner, reason))
    work = _Drain(services, way, services.clock() + limit_s)
    try:
        work.stop_all()
    except (Interrupted, Terminated) as error:
        error.hint = "No run is started here now. `ckptctl undrain` ends that, and brings back what was stopped."
        raise
    return tuple(work.outcome(one) for one in work.asked)


def plan_drain(services: Services) -> tuple[Drained, ...]:
    """What `drain` would stop now. Raises DutyDamaged, FileTrouble."""
    found = duties.read_duties(services.host_state, services.owner)
    return tuple(
        Drained(one.run, str(one.store), Result.WOULD_STOP, _newest(one), _would(one, services)) for one in found
    )


class _Drain:
    """A drain under way; `asked` are the runs that it came across, in that order."""

    def __init__(self, services: Services, way: Way, until_s: float) -> None:
        self._services = services
        self._way = way
        self._until_s = until_s
        self._failed: dict[str, CkptctlError] = {}
        self._saved: dict[str, str] = {}
        self.asked: list[Duty] = []

    def stop_all(self) -> None:
        """Until no run is left that could be stopped, or no time is."""
        services = self._services
        while True:
            living = duties.read_duties(services.host_state, services.owner)
            for one in living:
                if one not in self.asked:
                    self._ask(one)
                elif self._could_be_saved(one):
                    self._save(one)
            ending = any(self._liveness(one) is Liveness.ALIVE for one in self.asked)
            if not (ending or any(map(self._could_be_saved, living))) or services.clock() >= self._until_s:
                return
            services.interrupt.check()
            time.sleep(_TICK_S)

    def outcome(self, duty: Duty) -> Drained:
        """What became of the run, and whether it is to be brought back."""
        known = self._written(duty)
        result, text = self._judged(duty, known)
        if result is Result.ENDED:
            duties.forget_to_bring_back(self._services.host_state, duty)
        return Drained(duty.run, str(duty.store), result, self._saved.get(duty.file_name) or _newest(duty), text)

    def _ask(self, duty: Duty) -> None:
        """Ask the run to stop, once it is written down that it is to come back."""
        duties.remember_to_bring_back(self._services.host_state, duty)
        self.asked.append(duty)
        if self._liveness(duty) is Liveness.ALIVE:
            supervisor = duty.supervisor
            self._say(f"The run {duty.run} is asked to stop (ckptctl {supervisor.pid}).")
            control.send(ProcessId(supervisor.pid, supervisor.start_ticks), signal.SIGTERM)

    def _save(self, duty: Duty) -> None:
        """Save and end a job that nobody looks after: its supervisor was killed, or has left it alone."""
        from ckptctl.snapshot.dump import dump

        root, known = duty.root, self._written(duty)
        if root is None:
            return
        progress = known.progress if known and known.progress.source else None
        target = StoreTarget(Store(duty.store), duty.run)
        request = DumpRequest(root.pid, target, progress=progress, note=_NOTE, way=self._way)
        self._say(f"Nobody looks after the job of the run {duty.run} (pid {root.pid}): it is saved here.")
        try:
            report = dump(request, self._services)
        except CkptctlError as error:
            self._failed[duty.file_name] = error
        else:
            self._saved[duty.file_name] = report.id

    def _could_be_saved(self, living: Duty) -> bool:
        """Whether the job of a run that lives has nobody else to save it."""
        return self._liveness(living) is Liveness.DEAD and living.file_name not in {**self._failed, **self._saved}

    def _judged(self, duty: Duty, known: Supervision | None) -> tuple[Result, str]:
        liveness = self._liveness(duty)
        if duty.file_name in self._failed:
            error = self._failed[duty.file_name]
            why = f"{error.message}{' ' + error.hint if error.hint else ''}"
            return (Result.UNSAVED, f"is gone: {why}") if duty.root is None else (Result.RUNS, f"still runs: {why}")
        if liveness is Liveness.UNKNOWN:
            return Result.RUNS, f"still runs: {duty.supervisor} is in another PID namespace; drain it there"
        if liveness is Liveness.ALIVE or duty.root is not None:
            text = f"still runs: ckptctl {duty.supervisor.pid} was sent SIGTERM and has not ended in time"
            return Result.RUNS, f"{text}; see its log, and --on-signal if it was given"
        if duty.file_name in self._saved:
            return Result.SAVED, f"saved as {self._saved[duty.file_name]}"
        return _as_written(known, _newest(duty))

    def _written(self, duty: Duty) -> Supervision | None:
        """What this very supervisor wrote down; None where it did not get so far."""
        known = supervision.read_if_sound(duty.folder.supervision)
        if known is None or _identity(known.supervisor) != _identity(duty.supervisor):
            return None
        return known

    def _liveness(self, duty: Duty) -> Liveness:
        return duty.supervisor.liveness(self._services.owner)

    def _say(self, text: str) -> None:
        self._services.reporter.report(Notice(text))


def _as_written(known: Supervision | None, newest: str | None) -> tuple[Result, str]:
    """What became of a run whose job and supervisor are gone."""
    where = f"it goes on from {newest}" if newest else "it begins anew, since there is no snapshot of it"
    if known is None:
        return Result.SAVED, f"stopped before its job ran; {where}"
    if known.state is RunState.SAVED and newest is not None:
        return Result.SAVED, f"saved as {newest}"
    if known.state is RunState.FINISHED:
        return Result.ENDED, "came to its end by itself"
    if known.state in (RunState.DIED, RunState.GONE):
        return Result.ENDED, f"ended by itself ({known.state.value}), and is not brought back"
    reasons = [alert.text for alert in known.alerts if alert.code != NOT_SAVED]
    why = f": {reasons[-1]}" if reasons else ""
    return Result.UNSAVED, f"ended without a last snapshot{why} ({where})"


def _would(duty: Duty, services: Services) -> str:
    if duties.is_attended(duty, services.owner):
        return f"ckptctl {duty.supervisor.pid} would be asked to save and end it"
    return "its job would be saved and ended; nobody looks after it"


def _newest(duty: Duty) -> str | None:
    return links.target(duty.folder, duty.folder.latest)


def _identity(owner: Owner) -> tuple[str, int, int]:
    return owner.boot_id, owner.pid, owner.start_ticks
