"""The end of a drain: runs may be started again, and those that it stopped are."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from ckptctl import command, files
from ckptctl.command import Child, CommandFailed
from ckptctl.errors import CkptctlError
from ckptctl.events import Notice
from ckptctl.host.service import Service
from ckptctl.interrupt import Interrupted, Terminated
from ckptctl.process.identity import ProcessId, identify, is_alive
from ckptctl.snapshot import select
from ckptctl.snapshot.restore_request import RestoreRequest
from ckptctl.snapshot.services import HostState, Services
from ckptctl.store.layout import Store
from ckptctl.store.owner import Liveness
from ckptctl.supervise import duty as duties
from ckptctl.supervise import supervision
from ckptctl.supervise.duty import Duty
from ckptctl.supervise.supervision import RunState
from ckptctl.units import format_duration

_TICK_S: Final = 0.2
_TAIL_BYTES: Final = 2000


class Comeback(StrEnum):
    """What became of a run that a drain had stopped."""

    BACK = "back"
    RUNS_ALREADY = "runs already"
    ENDED = "ended"  # by itself, before it could be brought back
    FAILED = "failed"
    WOULD_START = "would start"


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """A run that a drain had stopped."""

    run: Annotated[str, "its name"]
    store: Annotated[str, "the store that it belongs to"]
    result: Annotated[Comeback, "what became of it"]
    text: Annotated[str, "the same in words, and why"]

    @property
    def as_wanted(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.result is not Comeback.FAILED


def bring_back(limit_s: float, services: Services) -> tuple[BroughtBack, ...]:
    """Let runs start again, start those that drains have stopped, and wait until they run, `limit_s` seconds at most.

    A service is started through systemd, anything else in the background, with the words, the folder, the environment
    and the log files that it had. What could not be brought back is tried again by the next call.
    Raises FileTrouble, DutyDamaged, Interrupted, Terminated.
    """
    host = services.host_state
    _end_drain(host)
    begun = [_Comeback(one, services) for one in duties.to_bring_back(host)]
    for one in begun:
        one.start()
    until_s = services.clock() + limit_s
    while any(not one.is_settled() for one in begun) and services.clock() < until_s:
        try:
            services.interrupt.check()
        except (Interrupted, Terminated) as error:
            error.hint = "What was started goes on. Run it again to see whether all are back."
            raise
        time.sleep(_TICK_S)
    return tuple(one.end(limit_s) for one in begun)


def plan_bring_back(services: Services) -> tuple[BroughtBack, ...]:
    """What `bring_back` would start now. Raises DutyDamaged, FileTrouble."""
    return tuple(
        BroughtBack(one.run, str(one.store), Comeback.WOULD_START, _how(one))
        for one in duties.to_bring_back(services.host_state)
    )


class _Comeback:
    """One run on its way back."""

    def __init__(self, duty: Duty, services: Services) -> None:
        self._duty = duty
        self._services = services
        self._child: tuple[Child, ProcessId] | None = None
        self._since = services.now()
        self._done: BroughtBack | None = None

    def start(self) -> None:
        """Start it, unless it runs; what went wrong is part of the result."""
        services, duty = self._services, self._duty
        living = duties.read_duties(services.host_state, services.owner)
        if any(one.place == duty.place and duties.is_attended(one, services.owner) for one in living):
            self._settle(Comeback.RUNS_ALREADY, "runs already")
            return
        known = supervision.read_if_sound(duty.folder.supervision)
        if known is not None and known.state is RunState.FINISHED:
            self._settle(Comeback.ENDED, "has come to its end meanwhile")
            return
        try:
            if duty.watched is not None and duty.root is None:
                _restore(duty, services)
            if duty.call.service is not None:
                _start_service(duty.call.service)
            else:
                child = _start_in_background(duty)
                self._child = child, identify(child.pid)
        except CkptctlError as error:
            self._settle(Comeback.FAILED, f"{error.message}{' ' + error.hint if error.hint else ''}")
        else:
            services.reporter.report(Notice(f"The run {duty.run} is started: {_how(duty)}."))

    def is_settled(self) -> bool:
        """Whether it runs, or certainly does not."""
        if self._done is None:
            known = supervision.read_if_sound(self._duty.folder.supervision)
            if known is not None and known.supervisor.since >= self._since:
                self._judge(known)
            elif self._child is not None and not is_alive(self._child[1]):
                self._settle(Comeback.FAILED, f"ended at once; {self._said()}")
        return self._done is not None

    def end(self, limit_s: float) -> BroughtBack:
        """The result; what runs is not to be brought back any more."""
        if not self.is_settled():
            where = "systemctl status" if self._duty.call.service else str(_log(self._duty))
            text = f"does not run yet after {format_duration(limit_s)}; see {where}"
            self._settle(Comeback.FAILED, text)
        if self._child is not None:
            self._child[0].close()
        assert self._done is not None
        if self._done.as_wanted:
            duties.forget_to_bring_back(self._services.host_state, self._duty)
        return self._done

    def _judge(self, known: supervision.Supervision) -> None:
        if known.state is RunState.RUNNING and known.job is not None and is_alive(known.job.identity):
            step = f" at step {known.progress.step}" if known.progress.step is not None else ""
            self._settle(Comeback.BACK, f"runs{step} (pid {known.job.pid})")
        elif known.supervisor.liveness(self._services.owner) is Liveness.DEAD:
            if known.state is RunState.FINISHED:
                self._settle(Comeback.BACK, "was brought back, and has come to its end")
            else:
                self._settle(Comeback.FAILED, f"does not run ({known.state.value}); {self._said()}")

    def _settle(self, result: Comeback, text: str) -> None:
        self._done = BroughtBack(self._duty.run, str(self._duty.store), result, text)

    def _said(self) -> str:
        if self._duty.call.service is not None:
            return f"see journalctl --unit {self._duty.call.service.name}"
        log = _log(self._duty)
        try:
            lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1].strip()} ({log})" if lines else f"see {log}"


def _end_drain(host: HostState) -> None:
    try:
        host.drained.unlink(missing_ok=True)
        if host.path.is_dir():
            files.fsync_folder(host.path)
    except OSError as error:
        raise files.trouble(error, f"{host.drained} cannot be removed") from error


def _how(duty: Duty) -> str:
    service = duty.call.service
    if service is None:
        return f"in the background, its messages go to {_log(duty)}"
    return shlex.join((*service.manager.words, "start", service.name))


def _start_service(service: Service) -> None:
    """Start the unit. Raises CommandMissing, CommandFailed."""
    # It may have given up, being refused again and again during the drain; one that is not loaded has not.
    with suppress(CommandFailed):
        service.manager.call("reset-failed", service.name)
    service.manager.call("start", "--no-block", service.name)


def _start_in_background(duty: Duty) -> Child:
    """Start ckptctl as it was started before. Raises CommandMissing, FileTrouble."""
    call = duty.call
    # What the job itself writes is in the logs of the run.
    output = _open(call.output or Path(os.devnull))
    errors = _open(call.errors or _log(duty))
    umask = os.umask(call.umask)
    try:
        return command.start_unattached(
            call.words, stdout=output, stderr=errors, environment=call.environment, pass_fds=(), cwd=call.cwd
        )
    except OSError as error:
        raise files.trouble(error, f"The run {duty.run} cannot be started in {call.cwd}") from error
    finally:
        os.umask(umask)
        os.close(output)
        os.close(errors)


def _restore(duty: Duty, services: Services) -> None:
    """Bring a job back that was only watched; what looks after it then finds it at the pid that it had."""
    from ckptctl.snapshot.restore import restore

    def bring_back(chosen: select.Chosen) -> None:
        restore(RestoreRequest(chosen.folder, chosen.manifest, chosen.store), services)

    select.restore_chosen(Store(duty.store), "latest", duty.run, services, bring_back)


def _log(duty: Duty) -> Path:
    """Where the messages of a ckptctl go that is started in the background; its own log is another one."""
    return duty.call.errors or duty.folder.output / "background.log"


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(path, flags, files.PRIVATE_FILE)
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be opened") from error
