"""Being alone with a tree from before it is looked at: a dump under way changes what there is to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import control
from ckptctl.process.identity import NoSuchProcess, exists, identify
from ckptctl.snapshot.services import Services
from ckptctl.store import locks

_ALL: Final = "It is the parent of everything here. Name the first process of the job: `ckptctl ps` lists the jobs."
_OUTSIDE: Final = "Run ckptctl outside the job: from another shell, from cron, or with setsid --fork."


class OwnTree(CkptctlError):
    """ckptctl was asked to dump a tree that it is part of."""

    code = "E_OWN_TREE"
    exit_status = ExitStatus.USAGE


@contextmanager
def alone_with(pid: int, services: Services) -> Iterator[None]:
    """Hold the lock on the tree below `pid` in this block, waiting for another command as `services` say.

    Raises NoSuchProcess, also where the process ended while it was waited for, OwnTree and Locked.
    """
    root = identify(pid)
    tree = control.walk(root)
    if services.owner.pid in {process.pid for process in tree}:
        raise OwnTree(
            f"Process {pid} is a parent of this ckptctl, which would freeze itself.",
            hint=_ALL if pid == 1 else _OUTSIDE,
        )
    with locks.tree_lock(
        services.host_state.locks, tree, services.owner, wait_s=services.lock_wait_s, interrupt=services.interrupt
    ):
        if not exists(root):
            raise NoSuchProcess(
                f"Process {pid} has ended while another command was at work on it.",
                hint="See `ckptctl list` for what was saved of it.",
            )
        yield
