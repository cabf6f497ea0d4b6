"""Running `criu restore`, and stopping it with nothing left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from ckptctl import command
from ckptctl.criu.failures import Action, CriuRestoreFailed, explain
from ckptctl.criu.images import read_restore_stats
from ckptctl.criu.invocation import command_line, common_words, read_log
from ckptctl.criu.program import Criu
from ckptctl.criu.records import RestoreStats
from ckptctl.criu.running import LOGS_OPTION, find_running
from ckptctl.errors import CkptctlError
from ckptctl.interrupt import Interrupt
from ckptctl.process.control import end, standing, wait_until, walk
from ckptctl.process.identity import NoSuchProcess, ProcessId, identify

OUTPUT = "restore.out"
_PIDFILE = "restore.pid"
_TICK_S = 0.02
_END_TIMEOUT_S = 10.0


class Parent(Enum):
    """Whose child the restored root becomes."""

    # The process that calls `restore`: it can wait for the root and learn its exit status.
    CALLER = ("--restore-detached", "--restore-sibling")
    # Process 1, or the nearest subreaper above the caller.
    INIT = ("--restore-detached",)


@dataclass(frozen=True, slots=True)
class InheritedFd:
    """A descriptor of this process that takes the place of what the job had: `key` is pipe:[N] as in the images."""

    fd: int
    key: str


class Server(Protocol):
    """Who gives the images where criu does not read them itself (`criu restore --stream`)."""

    @property
    def words(self) -> tuple[str, ...]:
        """Options for criu, after all others."""

    @property
    def failure(self) -> CkptctlError | None:
        """What was wrong with the images: known before criu notices that one of them ended early."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """One run of `criu restore`; the folders exist. criu's log, statistics and pid file go to `logs`.

    `own_session`: criu runs in a session of its own. A tree that was dumped from a shell (--shell-job) takes the
    session and the terminal of criu, so it needs False to be on the caller's terminal.
    """

    root_pid: int
    images: Path
    logs: Path
    options: tuple[str, ...] = ()
    parent: Parent = Parent.INIT
    inherit: tuple[InheritedFd, ...] = ()
    own_session: bool = True
    log_name: str = "restore.log"
    server: Server | None = None

    @property
    def pidfile(self) -> Path:
        return self.logs / _PIDFILE

    def argv(self, criu: Criu) -> tuple[str, ...]:
        """The whole command line. Raises FileTrouble where the empty plugin folder cannot be made."""
        words = [
            *common_words(self.images, self.logs, self.log_name),
            *self.parent.value,
            "--pidfile", str(self.pidfile),
            *(word for one in self.inherit for word in ("--inherit-fd", f"fd[{one.fd}]:{one.key}")),
            *self.options,
            *(self.server.words if self.server else ()),
        ]  # fmt: skip
        return command_line((), criu, "restore", words)

    def require_sound_images(self) -> None:
        """Raise what was wrong with the images that criu was given, if anything was."""
        if self.server is not None and self.server.failure is not None:
            raise self.server.failure


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A tree that runs again."""

    root: ProcessId
    stats: RestoreStats


def restore(criu: Criu, request: RestoreRequest, *, interrupt: Interrupt) -> RestoreResult:
    """Restore the tree into this PID namespace. Whatever is raised, nothing of the tree is left.

    Raises what `interrupt` raises, CriuRestoreFailed, CommandMissing, ImageDamaged, FileTrouble, the failure of the
    server, and NoSuchProcess for a root that ended at once. Without a server criu spins for ever on images whose pages
    are cut off: check their sizes before.
    """
    request.pidfile.unlink(missing_ok=True)
    child = command.start(
        request.argv(criu),
        output=request.logs / OUTPUT,
        pass_fds=[one.fd for one in request.inherit],
        own_session=request.own_session,
    )
    itself = identify(child.pid)
    try:
        status = _wait(child, itself, request, interrupt)
    finally:
        child.close()
    if status != 0:
        raise restore_failed(request, status)
    try:
        request.require_sound_images()
        return RestoreResult(identify(request.root_pid), read_restore_stats(request.logs))
    except BaseException:
        _end_leftovers(itself, request)
        raise


def restore_failed(request: RestoreRequest, status: int) -> CkptctlError:
    """The error for a criu that ended with `status`: that of the images, else from the log that it left."""
    if request.server is not None and request.server.failure is not None:
        return request.server.failure
    log = request.logs / request.log_name
    text = read_log(log) or read_log(request.logs / OUTPUT)
    return CriuRestoreFailed(explain(text, action=Action.RESTORE, status=status), status, log)


def _wait(child: command.Child, criu: ProcessId, request: RestoreRequest, interrupt: Interrupt) -> int:
    reason: BaseException | None = None

    def tick() -> None:
        if reason is None:
            interrupt.check()
        else:
            end(_restored(criu, request.root_pid))

    while True:
        try:
            status = child.wait(tick, _TICK_S)
        except BaseException as error:
            reason = reason or error
            continue
        if reason is not None or status != 0:
            _end_leftovers(criu, request)
        if reason is not None:
            raise reason
        return status


def _restored(criu: ProcessId, root_pid: int) -> tuple[ProcessId, ...]:
    """What this criu has brought back so far: its descendants, and the root where that is not its child.

    Once one of them is dead criu gives up, ends the others and exits.
    """
    found = dict.fromkeys(walk(criu)[1:])
    with contextlib.suppress(NoSuchProcess):
        root = identify(root_pid)
        # One that is older has nothing to do with this restore; criu has failed because of it.
        if root.start_ticks >= criu.start_ticks:
            found.update(dict.fromkeys(walk(root)))
    return tuple(found)


def _copies(logs: Path) -> Iterator[ProcessId]:
    """Tasks that are still copies of the criu with these logs: without it and their parent nobody else knows them."""
    for pid in find_running(logs, LOGS_OPTION):
        with contextlib.suppress(NoSuchProcess):
            yield identify(pid)


def _end_leftovers(criu: ProcessId, request: RestoreRequest) -> None:
    """End what a criu that was killed itself, or that succeeded against our will, has left; reap our own child."""
    left: set[ProcessId] = set()

    def is_ended() -> bool:
        # Looked for each time: what is about to be ended may just be starting another.
        left.update(_restored(criu, request.root_pid), _copies(request.logs))
        end(tuple(left))
        return all(standing(process).gone for process in left)

    wait_until(is_ended, timeout_s=_END_TIMEOUT_S)
    if any(process.pid == request.root_pid for process in left):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(request.root_pid, os.WNOHANG)
