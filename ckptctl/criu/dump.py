"""Running `criu dump`, and stopping it without harm to the tree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ckptctl import command
from ckptctl.criu.failures import dump_failed
from ckptctl.criu.invocation import command_line, common_words, read_log
from ckptctl.criu.program import Criu
from ckptctl.criu.running import cancel, find_running
from ckptctl.interrupt import Interrupt
from ckptctl.process.control import standing, wait_until, walk
from ckptctl.process.identity import NoSuchProcess, identify

if TYPE_CHECKING:
    from ckptctl.criu.records import DumpStats

LOG_NAME = "dump.log"
_OUTPUT = "dump.out"
_TICK_S = 0.05
_STOP_TIMEOUT_S = 5.0


class Leave(Enum):
    """What criu does with a tree that it has dumped; that it kills it is not among the choices."""

    RUNNING = "--leave-running"
    # By SIGSTOP. Its TCP connections stay locked and in repair mode: see ckptctl.criu.network.
    STOPPED = "--leave-stopped"


class Streamer(Protocol):
    """Who takes the images where criu does not write them itself (`criu dump --stream`)."""

    @property
    def words(self) -> tuple[str, ...]:
        """Options for criu, after all others."""

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Descriptors that criu must be started with."""

    def started(self) -> None:
        """criu has been started."""

    def written_bytes(self) -> int:
        """The bytes of memory that have come so far."""

    def cancel(self) -> None:
        """Let criu fail, if it has not ended yet; may be called again."""


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """One run of `criu dump`; the folders exist.

    `root_pid` is the pid in the namespace that `prefix` leads into (see ckptctl.criu.namespaces), and both folders are
    paths there. criu's log and statistics go to `logs`. With a `streamer` criu writes no image into its folder.
    """

    root_pid: int
    images: Path
    logs: Path
    options: tuple[str, ...] = ()
    leave: Leave = Leave.STOPPED
    prefix: tuple[str, ...] = ()
    log_name: str = LOG_NAME
    # Where `prefix` leads elsewhere: the number of the root as it is seen from here.
    outer_pid: int | None = None
    streamer: Streamer | None = None

    def argv(self, criu: Criu) -> tuple[str, ...]:
        """The whole command line. Raises FileTrouble where the empty plugin folder cannot be made."""
        words = [
            "-t", str(self.root_pid),
            *common_words(self.images, self.logs, self.log_name),
            self.leave.value,
            *self.options,
            *(self.streamer.words if self.streamer else ()),
        ]  # fmt: skip
        return command_line(self.prefix, criu, "dump", words)

    def written_bytes(self) -> int:
        """The bytes of memory that are saved so far."""
        return self.streamer.written_bytes() if self.streamer else written_bytes(self.images)


def dump(criu: Criu, request: DumpRequest, *, interrupt: Interrupt, on_progress: Callable[[int], None]) -> DumpStats:
    """Dump the tree; `on_progress` is told the bytes of memory written so far.

    Whatever is raised, criu has ended by itself before, and a tree whose dump did not succeed runs on. One case is
    left: asked to stop after the last image was written, criu still succeeds, the exception of `interrupt` is raised
    all the same, and the tree is left as `request.leave` says: the caller lets it run.
    Raises what `interrupt` and `on_progress` raise, CriuDumpFailed, CommandMissing, ImageDamaged, FileTrouble.
    """
    argv = request.argv(criu)
    streamer = request.streamer
    child = command.start(argv, output=request.logs / _OUTPUT, pass_fds=streamer.pass_fds if streamer else ())
    try:
        if streamer is not None:
            streamer.started()
        status, reason = _wait(child, request, interrupt, on_progress)
    finally:
        child.close()
    if status == 0 and request.leave is Leave.STOPPED:
        _wait_until_stopped(request)
    if reason is not None:
        raise reason
    if status != 0:
        log = request.logs / request.log_name
        text = read_log(log) or read_log(request.logs / _OUTPUT)
        raise dump_failed(text, status, log)
    from ckptctl.criu.images import read_dump_stats

    return read_dump_stats(request.logs)


def written_bytes(images: Path) -> int:
    """The bytes of memory pages that lie in a folder of images so far."""
    return sum(path.stat().st_size for path in images.glob("pages-*.img"))


def _wait(
    child: command.Child, request: DumpRequest, interrupt: Interrupt, on_progress: Callable[[int], None]
) -> tuple[int, BaseException | None]:
    """The exit status of criu, and why it was asked to stop."""
    reason: BaseException | None = None

    def tick() -> None:
        if reason is None:
            interrupt.check()
            on_progress(request.written_bytes())
        elif request.streamer is not None:
            request.streamer.cancel()
        else:
            _cancel_all(child, request.images)

    while True:
        try:
            status = child.wait(tick, _TICK_S)
        except BaseException as error:
            # Not even Ctrl-C may leave criu alone with the tree: it is asked to stop and waited for.
            reason = reason or error
            continue
        return status, reason


def _wait_until_stopped(request: DumpRequest) -> None:
    """Wait for the SIGSTOP that criu sends last: it takes effect a moment after criu has gone.

    Who looked before would take the tree for a running one, and leave it to stop for good.
    """
    pid = request.outer_pid or (None if request.prefix else request.root_pid)
    if pid is None:
        return
    with contextlib.suppress(NoSuchProcess):
        tree = walk(identify(pid))
        wait_until(
            lambda: all(now.stopped or now.gone for now in map(standing, tree)),
            timeout_s=_STOP_TIMEOUT_S,
        )


def _cancel_all(child: command.Child, images: Path) -> None:
    # The child may be the nsenter that started criu, and may start it only now: asked again at every tick.
    for pid in {child.pid, *find_running(images)}:
        cancel(pid)
