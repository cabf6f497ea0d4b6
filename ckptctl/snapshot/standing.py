"""How a tree stands after criu has worked on it, and bringing it to where it belongs: running, or ended.

Both are called in the ordinary course and again by a recovery, so they look at what is there and are idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from ckptctl.criu.dump import LOG_NAME
from ckptctl.criu.invocation import read_log
from ckptctl.criu.namespaces import pid_inside
from ckptctl.criu.running import cancel, find_running
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.files import FileTrouble
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot.outcome import JobState, Outcome
from ckptctl.store.journal import JournalEntry, Phase, TreeProcess
from ckptctl.store.layout import SnapshotFolder

# Before, nothing was stopped, and a job may have a handler for SIGCONT.
_CRIU_WAS_THERE: Final = frozenset({Phase.FREEZING, Phase.FROZEN, Phase.COMMITTING})
_CONTINUE_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 60.0
_REAP_TIMEOUT_S: Final = 5.0


class JobStopped(CkptctlError):
    """A tree that should run again does not."""

    code = "E_JOB_STOPPED"
    exit_status = ExitStatus.PROCESS_LOST


class JobLeft(CkptctlError):
    """A tree that has been saved and should have ended is still there."""

    code = "E_JOB_LEFT"
    exit_status = ExitStatus.PARTIAL


def let_run(entry: JournalEntry) -> None:
    """Let the tree of a dump run on: end criu's work if it still goes on, unlock connections, continue.

    The GPU is not touched: see `ckptctl.snapshot.gpu`. Waits for criu however long it takes, since it must not be
    killed. Raises JobStopped.
    """
    if entry.staging is not None:
        _wait_for_criu(SnapshotFolder(entry.staging).images)
    if entry.phase not in _CRIU_WAS_THERE:
        return
    tree = members(entry)
    _release_connections(entry, tree)
    kept = frozenset(process for process in tree if process.pid in entry.stopped_before)
    control.let_run(tree, keep_stopped=kept)
    running = control.wait_until(
        lambda: not any(control.standing(process).stopped for process in tree if process not in kept),
        timeout_s=_CONTINUE_TIMEOUT_S,
    )
    if not running:
        raise JobStopped(
            f"The processes {_list(tree)} are stopped and do not go on.",
            hint=f"Continue them by hand: kill -CONT {' '.join(str(process.pid) for process in tree)}",
        )


def end_saved(entry: JournalEntry, warn: Callable[[str, str], None]) -> None:
    """End the tree of a dump that was committed, and wait until its pids are free.

    A process that has ended but keeps its pid, because its parent does not ask for its status, is warned of.
    Raises JobLeft.
    """
    tree = members(entry)
    control.end(tree)
    if not control.wait_until(lambda: all(control.standing(one).gone for one in tree), timeout_s=_END_TIMEOUT_S):
        left = [one for one in tree if not control.standing(one).gone]
        raise JobLeft(
            f"The snapshot {entry.folder} is complete, but the processes {_list(left)} do not end.",
            hint="They wait inside the kernel, for a disk perhaps. `ckptctl recover` ends them later.",
        )
    for text in _forget_connections(SnapshotFolder(entry.folder)):
        warn(text, "W_NOT_UNLOCKED")
    control.wait_until(lambda: not _unreaped(tree), timeout_s=_REAP_TIMEOUT_S)
    for process, parent in _unreaped(tree):
        warn(
            f"Process {process.pid} has ended, but its parent {parent} does not ask for its status, so the pid is "
            "not free: a restore must wait for that, or use --new-pid-namespace.",
            "W_NOT_REAPED",
        )


def is_standing_still(entry: JournalEntry) -> bool:
    """Whether anything of the tree is stopped that was not before we came."""
    return any(
        control.standing(process).stopped for process in members(entry) if process.pid not in entry.stopped_before
    )


def members(entry: JournalEntry) -> tuple[ProcessId, ...]:
    """The processes that the entry names, and whatever descends from its root now."""
    named = [ProcessId(one.pid, one.start_ticks) for one in entry.tree]
    now = control.walk(named[0]) if named else ()
    return tuple(dict.fromkeys([*now, *named]))


def tree_processes(processes: Iterable[ProcessId]) -> tuple[TreeProcess, ...]:
    """The processes as the journal keeps them."""
    return tuple(TreeProcess(one.pid, one.start_ticks) for one in processes)


def outcome_of(root: ProcessId, *, stopped_before: bool) -> Outcome:
    """What to say of a job that was to live on; `stopped_before` where it stood still before we came."""
    now = control.standing(root)
    if now.gone:
        return Outcome(root.pid, JobState.GONE, f"The job (pid {root.pid}) is gone.")
    if now.stopped and stopped_before:
        return Outcome(root.pid, JobState.LEFT_STOPPED, f"The job (pid {root.pid}) is stopped, as it was before.")
    if now.stopped:
        return Outcome(root.pid, JobState.STOPPED, f"The job (pid {root.pid}) is stopped.")
    return Outcome(root.pid, JobState.RUNNING, f"The job (pid {root.pid}) runs on.")


def _release_connections(entry: JournalEntry, tree: Iterable[ProcessId]) -> None:
    if entry.staging is None:
        return
    from ckptctl.criu import network
    from ckptctl.criu.container import ImageDamaged
    from ckptctl.criu.images import read_images

    folder = SnapshotFolder(entry.staging)
    living = [process.pid for process in tree if not control.standing(process).gone]
    try:
        images = read_images(folder.images)
    except ImageDamaged:
        # criu has failed, and has released them itself, or it was killed.
        network.release_unfinished(read_log(folder.logs / LOG_NAME), living)
    else:
        network.release_connections(images, {pid_inside(pid): pid for pid in living})


def _forget_connections(folder: SnapshotFolder) -> Iterator[str]:
    """Remove CRIU's packet filter once the tree is gone, unless a peer outside still waits behind it.

    Yields what could not be done, for people: the job has ended and is saved all the same.
    """
    from ckptctl.criu import network
    from ckptctl.criu.container import ImageDamaged
    from ckptctl.criu.images import read_images

    try:
        images = read_images(folder.images)
        if not network.leads_outside(images):
            network.release_connections(images, {})
    except (network.ConnectionsLocked, ImageDamaged, FileTrouble) as error:
        yield f"{error.message} {error.hint}"


def _wait_for_criu(images: Path) -> None:
    def ended() -> bool:
        running = find_running(images)
        for pid in running:
            cancel(pid)
        return not running

    while not control.wait_until(ended, timeout_s=60.0, poll_s=0.05):
        pass


def _unreaped(tree: Iterable[ProcessId]) -> list[tuple[ProcessId, int]]:
    """Those whose parent has not asked for their status, each with that parent; for children of ours we ask here."""
    found = []
    for process in tree:
        control.reap(process)
        parent = control.unreaped_parent(process)
        if parent is not None:
            found.append((process, parent))
    return found


def _list(processes: Iterable[ProcessId]) -> str:
    return ", ".join(str(process.pid) for process in processes)
