"""Snapshots of one run that are of different jobs: where nobody named the run, scripts of one name share it."""

from __future__ import annotations

import shlex

from ckptctl.process.tree import Tree
from ckptctl.store.catalog import list_snapshots
from ckptctl.store.layout import Store


def of_another_job(store: Store, run: str, tree: Tree) -> str | None:
    """That the newest snapshot of the run is of another job, by command line or working folder; None where it is not.

    Raises FileTrouble.
    """
    newest = next((one for one in reversed(list_snapshots(store, run)) if one.manifest is not None), None)
    if newest is None or newest.manifest is None:
        return None
    then, now = newest.manifest.tree.root, tree.root
    folder = now.cwd.path if now.cwd else None
    if then.cmdline == now.command_line and then.cwd == folder:
        return None
    return (
        f"The newest snapshot of the run {run}, {newest.id}, is of another job: {shlex.join(then.cmdline)}, in "
        f"{then.cwd}. `latest`, `backup` and what is kept are now those of both; --run NAME gives this one its own."
    )
