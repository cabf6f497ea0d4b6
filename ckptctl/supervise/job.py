"""The job that is supervised: found again after its supervisor was killed, waited for, signalled, ended."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import control, proc
from ckptctl.process.identity import ProcessId
from ckptctl.process.member import command_words, read_environment, read_stat
from ckptctl.snapshot import twice
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Manifest, ProcessRecord, ProcessState, Tree
from ckptctl.supervise.exits import JobExit, Watch, read_exit
from ckptctl.supervise.launch import STATUS_VARIABLE

# Processes that look like keepers, with the names of their runs.
Keepers = tuple[tuple[ProcessId, str], ...]

_KEEPER: Final = "keeper.py"
_END_TIMEOUT_S: Final = 30.0
_CLOCKS_DIFFER_S: Final = 2.0


class EndedInside(CkptctlError):
    """A snapshot holds a job that had ended: brought back, it would end again at once."""

    code = "E_ENDED_INSIDE"
    exit_status = ExitStatus.INTEGRITY


class Job:
    """A tree that runs. `root` is what is dumped: the keeper, or the process that `watch` was told of."""

    def __init__(self, root: ProcessId, exit_file: Path, watch: Watch | None = None) -> None:
        """`watch`: what this process has for waiting, where it started the tree itself. Raises NoSuchProcess."""
        self.root = root
        self._watch = watch or Watch(root, exit_file)

    def ended(self, wait_s: float) -> bool:
        """Whether the root ends, or has ended, within that time."""
        return self._watch.wait(wait_s)

    def exit(self) -> JobExit | None:
        """How the job ended; None while it runs, and where nobody could say. Raises FileTrouble."""
        return self._watch.job_exit()

    @property
    def root_status(self) -> int | None:
        """How the root itself ended, -N for signal N: as the job did, for a keeper that was not killed.

        None while it runs, and where it was no child of ours.
        """
        return self._watch.keeper_status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the root; a keeper passes it on to the job."""
        control.send(self.root, number)

    def end(self, grace_s: float) -> bool:
        """Ask the job to end (SIGTERM), and kill the whole tree after `grace_s` seconds; False if it is still there."""
        if grace_s > 0:
            self.send(signal.SIGTERM)
            if self.ended(grace_s):
                return True
        gone = end_all(control.walk(self.root))
        return self.ended(0) and gone

    def close(self) -> None:
        """Release the handles; the job is left alone."""
        self._watch.close()


def end_all(tree: Sequence[ProcessId]) -> bool:
    """Kill these processes and reap those that are ours; False where one is still there after a while."""
    control.end(tree)
    gone = control.wait_until(
        lambda: all(control.standing(one).gone for one in tree), timeout_s=_END_TIMEOUT_S, poll_s=0.05
    )
    for process in tree:
        control.reap(process)
    return gone


def forget_former_exit(run: RunFolder, keeper: ProcessId) -> None:
    """Remove what says how the job ended if that was before this keeper began, which somebody has restored since.

    Raises FileTrouble.
    """
    found = read_exit(run.job_exit)
    ticks_s = os.sysconf("SC_CLK_TCK")
    runs_for_s = time.clock_gettime(time.CLOCK_BOOTTIME) - keeper.start_ticks / ticks_s
    if found is not None and time.time() - found.ended_s > runs_for_s + _CLOCKS_DIFFER_S:
        files.remove(run.job_exit)


def find_strays(run: RunFolder) -> tuple[ProcessId, ...]:
    """Processes of this run's job that live on without their keeper, because somebody killed that.

    They are known by the variable that the job was given, which all its descendants inherit; the store may have been
    called by another name then.
    """
    status = run.job_status.resolve()
    found = []
    for pid in proc.numbers("/proc"):
        with suppress(OSError, proc.Vanished):
            named = read_environment(pid).get(STATUS_VARIABLE)
            if named is not None and pid != os.getpid() and Path(named).resolve() == status:
                found.append(read_stat(f"/proc/{pid}/stat").id)
    return tuple(found)


def ended_inside(snapshot_id: str) -> EndedInside:
    """The error for such a snapshot."""
    return EndedInside(
        "The job was just ending when this snapshot was taken.", hint=f"Remove it: ckptctl rm {snapshot_id}"
    )


def has_ended_in(tree: Tree) -> bool:
    """Whether the job of a keeper had ended already when the tree was saved: restored, it would end again at once.

    It may be killed in the very moment of the dump, before its keeper has asked for its status.
    """
    root = tree.root
    if not _has_keeper(root):
        return False
    below = [one for one in tree.processes if one is not root]
    zombies = [one for one in below if one.state is ProcessState.ZOMBIE]
    # The job leads a session, and is a child of the keeper.
    job_is_one = any(one.parent_pid == root.pid and one.sid == one.pid for one in zombies)
    return job_is_one or len(zombies) == len(below)


def find_keeper(run: RunFolder) -> ProcessId | None:
    """The keeper of this run, if there is one on this machine: whoever started or restored it, and in what namespace.

    It is known by its command line, its owner, and the log of the run on its standard output.
    """
    return keeper_among(list_keepers(), run)


def list_keepers() -> Keepers:
    """Those of this machine, from one look at all its processes."""
    found = []
    for pid in proc.numbers("/proc"):
        with suppress(OSError, proc.Vanished):
            name = _kept_run(command_words(pid))
            if name is not None:
                found.append((read_stat(f"/proc/{pid}/stat").id, name))
    return tuple(found)


def kept_in(pid: int) -> Path | None:
    """The folder of the run whose job this process keeps, by the log that it writes to; None where it is no keeper.

    Raises OSError and Vanished where it cannot be looked at.
    """
    entry = Path("/proc", str(pid))
    if _kept_run(command_words(pid)) is None or entry.stat().st_uid != os.geteuid():
        return None
    folder = (entry / "fd" / "1").readlink().parent.parent
    return folder if folder.name == _kept_run(command_words(pid)) else None


def keeper_among(keepers: Keepers, run: RunFolder) -> ProcessId | None:
    """The one of `list_keepers` that keeps the job of this very run: names come again in other stores."""
    for keeper, name in keepers:
        with suppress(OSError):
            if name == run.name and _writes_to(keeper.pid, run):
                return keeper
    return None


def running_as_saved(manifest: Manifest) -> ProcessId | None:
    """What runs as the job of this snapshot and has no keeper: brought back by hand, as far as one can see.

    One with a keeper is found by `find_keeper`.
    """
    return None if _has_keeper(manifest.tree.root) else twice.running(manifest)


def _has_keeper(root: ProcessRecord) -> bool:
    return any(Path(word).name == _KEEPER for word in root.cmdline)


def _kept_run(words: Iterable[str]) -> str | None:
    """The name of the run in the command line of a keeper; None for other processes."""
    after = itertools.dropwhile(lambda word: Path(word).name != _KEEPER, words)
    return next(itertools.islice(after, 1, None), None)


def _writes_to(pid: int, run: RunFolder) -> bool:
    """Whether the process is ours and writes to the log of the run, which somebody may have renamed or removed."""
    entry = Path("/proc", str(pid))
    log = entry / "fd" / "1"
    return entry.stat().st_uid == os.geteuid() and (
        log.readlink().parent == run.output.resolve() or log.samefile(run.stdout)
    )
