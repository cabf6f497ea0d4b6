"""A job runs once: two of it would write to the same files. Looked at before a restore waits for anything."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import control
from ckptctl.process.identity import NoSuchProcess, ProcessId, identify
from ckptctl.process.member import command_words, read_stat
from ckptctl.process.proc import Vanished
from ckptctl.snapshot.services import Services
from ckptctl.store import locks
from ckptctl.store.layout import Store
from ckptctl.store.locks import Locked
from ckptctl.store.manifest import Manifest, ProcessRecord

BESIDE: Final = "restore a second one beside it with --new-pid-namespace: both then write to the same files"
# Somebody may just have killed it; the kernel marks it as ending as soon as it gets to run.
_ENDING_S: Final = 0.5
_POLL_S: Final = 0.1


class JobRuns(CkptctlError):
    """The very job that is to be restored runs already. `details` has its `pid`."""

    code = "E_JOB_RUNS"
    exit_status = ExitStatus.INCOMPATIBLE


def require_absent(manifest: Manifest, store: Store | None, services: Services) -> None:
    """See that the job runs neither here nor, as far as its run's supervisor tells, anywhere. Raises JobRuns, Locked.

    A supervisor that restores the job itself is not in its own way.
    """
    control.wait_until(lambda: running(manifest) is None, timeout_s=_ENDING_S, interrupt=services.interrupt)
    root = running(manifest)
    if root is not None:
        raise JobRuns(
            f"The job runs already: process {root.pid} has the pid and the command line of the one that was saved.",
            hint=f"End it first (kill {root.pid}), or {BESIDE}.",
            details={"pid": root.pid},
        )
    if store is not None:
        _require_unattended(manifest.run, store, services)


def _require_unattended(run: str, store: Store, services: Services) -> None:
    def attendance() -> Locked | None:
        return locks.in_the_way(store.locks, [locks.supervision_of(run)], services.owner)

    # The supervisor of a job that has just ended notices that in a moment.
    wait_s = max(services.lock_wait_s, _ENDING_S)
    control.wait_until(lambda: attendance() is None, timeout_s=wait_s, interrupt=services.interrupt, poll_s=_POLL_S)
    attended = attendance()
    if attended is not None:
        away = f" {attended.hint}" if attended.details.get("out_of_sight") else ""
        raise Locked(
            f"{attended.message} Its job is brought back by that, and by nobody beside it.",
            hint=f"End that first, or {BESIDE}.{away}",
            details=attended.details,
        )


def running(manifest: Manifest) -> ProcessId | None:
    """The root of the job of this snapshot, where that runs here, in the PID namespace of the caller.

    Its pid and command line tell; and those of a child of it, where it had one and that child lives on: programs that
    only start others have one command line for all.
    """
    root = manifest.tree.root
    children = [one for one in manifest.tree.processes if one.parent_pid == root.pid and one.cmdline]
    if not _lives(root) or (children and not any(map(_lives, children))):
        return None
    with suppress(NoSuchProcess):
        return identify(root.pid)
    return None


def _lives(process: ProcessRecord) -> bool:
    try:
        words = command_words(process.pid)
        return words != () and words == process.cmdline and not read_stat(f"/proc/{process.pid}/stat").is_ending
    except Vanished:
        return False
