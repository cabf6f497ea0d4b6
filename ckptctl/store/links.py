"""`latest`, `backup` and `best`: links in a run's folder that name snapshots in it, and nothing else.

Their targets are read, checked and joined by us; no link is ever followed by the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from ckptctl import files
from ckptctl.store.layout import RunFolder
from ckptctl.store.names import is_snapshot_id


def target(run: RunFolder, link: Path) -> str | None:
    """The id of the snapshot that `link` (`run.latest` and the like) names; None where it names none that is there."""
    try:
        named = str(link.readlink())
        there = stat.S_ISDIR((run.path / named).lstat().st_mode) if is_snapshot_id(named) else False
    except OSError:
        return None
    return named if there else None


def advance(run: RunFolder, snapshot_id: str) -> None:
    """Let `latest` be this snapshot, and `backup` the one that was `latest` before. Safe to call again.

    `backup` moves first: after a crash in between both name the former one, and the next call goes on from there.
    Raises files.FileTrouble.
    """
    former = target(run, run.latest)
    if former == snapshot_id:
        return
    if former is not None:
        files.replace_link(run.backup, former)
    files.replace_link(run.latest, snapshot_id)


def repair(run: RunFolder, ids: Sequence[str]) -> None:
    """Let links that name nothing name the newest of `ids` (those in the run, oldest first), or remove them.

    `backup` never becomes what `latest` is. Raises files.FileTrouble.
    """
    latest = _repaired(run, run.latest, ids)
    _repaired(run, run.backup, [name for name in ids if name != latest])


def set_best(run: RunFolder, snapshot_id: str | None) -> None:
    """Let `best` be this snapshot, or nothing. Raises files.FileTrouble."""
    if snapshot_id is None:
        _remove(run.best)
    elif target(run, run.best) != snapshot_id:
        files.replace_link(run.best, snapshot_id)


def _repaired(run: RunFolder, link: Path, candidates: Sequence[str]) -> str | None:
    found = target(run, link)
    if found in candidates:
        return found
    if candidates:
        files.replace_link(link, candidates[-1])
        return candidates[-1]
    _remove(link)
    return None


def _remove(link: Path) -> None:
    try:
        link.unlink(missing_ok=True)
    except OSError as error:
        raise files.trouble(error, f"The link {link} cannot be removed") from error
