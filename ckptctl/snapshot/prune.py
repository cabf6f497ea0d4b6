"""Giving space back: the trash, and what killed dumps and old restores have left in the store.

Everything goes by way of the trash: only the renames need the store for themselves, the deleting takes its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.snapshot.reclaim import reclaim
from ckptctl.snapshot.remove import USERS_OWN
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, journal, locks, removal
from ckptctl.store.layout import Store
from ckptctl.store.locks import Locked
from ckptctl.store.names import is_snapshot_id


class Kind(StrEnum):
    """What takes space in a store and is no snapshot."""

    FORGOTTEN = "forgotten"  # in the trash
    STAGING = "staging"  # of a dump that was killed
    LOGS = "logs"  # of restores of a snapshot that is gone
    TAILS = "tails"  # what such restores cut from the job's files: data of the user's
    OUTPUT = "output"  # what such jobs wrote after their restore: data of the user's


@dataclass(frozen=True, slots=True)
class Rubbish:
    """A folder and what it takes on the disk."""

    path: Path
    kind: Kind
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted (or would be) and what was left, being data of the user's; `problems` are sentences."""

    deleted: tuple[Rubbish, ...]
    left: tuple[Rubbish, ...]
    problems: tuple[str, ...] = ()
    reclaimed_bytes: int = 0
    """What was dead in containers that snapshots share."""

    @property
    def freed_bytes(self) -> int:
        """How much that has given back."""
        return sum(rubbish.size_bytes for rubbish in self.deleted) + self.reclaimed_bytes


_USERS_OWN: Final = frozenset(Kind(kind) for kind in USERS_OWN)
_BESIDE: Final = frozenset({Kind.LOGS, *_USERS_OWN})


def prune(store: Store, *, tails: bool, dry_run: bool, services: Services) -> Pruned:
    """Delete what is in the trash, staging folders that nobody builds in, and logs of restores of snapshots gone.

    Then what is dead in containers that snapshots share.
    What restores cut from files (`ID.tails`) goes only with `tails`; what jobs wrote (`ID.output`) never does.
    One that cannot be deleted does not save the others. While somebody dumps or restores in this store, or where the
    disk is so full that no lock can be written, only the trash is emptied.
    Raises FileTrouble and what the interrupt raises.
    """
    trash = [_rubbish(path, Kind.FORGOTTEN) for path in _folders(store.trash)]
    try:
        wait_s, interrupt = services.lock_wait_s, services.interrupt
        with locks.store_lock(store, locks.Intent.EXCLUSIVE, services.owner, wait_s=wait_s, interrupt=interrupt):
            found = list(_leftovers(store, services))
            wanted = [one for one in found if _is_wanted(one, tails=tails)]
            moved, problems = ([], []) if dry_run else _to_trash(store, wanted)
    except (Locked, NoSpace) as error:  # on a full disk not even a lock can be written
        found, wanted, moved = [], [], []
        problems = [f"Only the trash was looked at: {error.message}"]
    left = tuple(one for one in found if one not in wanted)
    if dry_run:
        return Pruned((*trash, *wanted), left, tuple(problems))
    deleted, failures = _delete([*((one.path, one) for one in trash), *moved], services)
    reclaimed_bytes = sum(reclaim(store, run.name, services) for run in catalog.list_runs(store))
    return Pruned(tuple(deleted), left, (*problems, *failures), reclaimed_bytes)


def _leftovers(store: Store, services: Services) -> Iterator[Rubbish]:
    """What is no snapshot and has none. The caller has the store for itself: no dump and no restore is under way."""
    entries = journal.open_entries(services.host_state.journal, services.owner)
    # A journal that cannot be read may speak of any of them.
    if all(isinstance(entry, journal.OpenEntry) for entry in entries):
        known = {found.entry.staging for found in entries if isinstance(found, journal.OpenEntry)}
        yield from (_rubbish(path, Kind.STAGING) for path in _folders(store.staging) if path not in known)
    for run in catalog.list_runs(store):
        for path in _folders(run.path):
            snapshot_id, dot, kind = path.name.partition(".")
            if dot and kind in _BESIDE and is_snapshot_id(snapshot_id) and not run.snapshot(snapshot_id).path.exists():
                yield _rubbish(path, Kind(kind))


def _is_wanted(one: Rubbish, *, tails: bool) -> bool:
    """Whether it may be deleted: what holds data of the user's only where that was asked."""
    if one.kind not in _USERS_OWN or (tails and one.kind is Kind.TAILS):
        return True
    try:
        return next(files.walk_regular_files(one.path), None) is None
    except OSError:
        return False


def _to_trash(store: Store, wanted: list[Rubbish]) -> tuple[list[tuple[Path, Rubbish]], list[str]]:
    moved, problems = [], []
    for one in wanted:
        try:
            moved.append((removal.put_in_trash(store, one.path), one))
        except (FileTrouble, NoSpace) as error:
            problems.append(error.message)
    return moved, problems


def _delete(rubbish: list[tuple[Path, Rubbish]], services: Services) -> tuple[list[Rubbish], list[str]]:
    deleted, problems = [], []
    for path, one in rubbish:
        services.interrupt.check()
        try:
            removal.delete(path)
        except FileTrouble as error:
            problems.append(error.message)
        else:
            deleted.append(one)
    return deleted, problems


def _rubbish(path: Path, kind: Kind) -> Rubbish:
    return Rubbish(path, kind, removal.disk_bytes(path))


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it is missing. Raises FileTrouble."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be listed") from error
