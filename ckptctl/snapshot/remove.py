"""Removing a snapshot while nobody restores it."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.criu import network
from ckptctl.criu.container import ImageDamaged
from ckptctl.criu.images import read_images
from ckptctl.criu.records import Images
from ckptctl.errors import CkptctlError, ExitStatus, UsageError
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.snapshot.reclaim import reclaim
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, journal, locks, removal
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.selectors import find

# Folders beside a snapshot that hold what its restores cut from the job's files, and what the job wrote since.
USERS_OWN: Final = ("tails", "output")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed. `kept` are folders beside it with data of the user's: what restores cut from logs, and output.

    `warnings` say what could not be cleared away.
    """

    id: str
    run: str
    kept: tuple[Path, ...]
    warnings: tuple[str, ...]


class InUse(CkptctlError):
    """A snapshot is needed by a dump or a restore that was cut off and is not mended yet."""

    code = "E_IN_USE"
    exit_status = ExitStatus.LOCKED


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A snapshot that is in the trash now with the logs of its restores, where it still takes its space."""

    rubbish: tuple[Path, ...]
    warnings: tuple[str, ...]


def remove(store: Store, selector: str, run: str | None, *, force: bool, services: Services) -> Removed:
    """Remove the snapshot that the selector means, the logs of its restores, and what its dump left in the kernel.

    Raises NothingMatched, Ambiguous, Locked, LastSnapshot, Pinned, InUse, FileTrouble, and UsageError for a folder of
    its own.
    """
    found = find(store, selector, run)
    if found.id is None or found.run is None:
        raise UsageError(f"{found} is not in the store.", hint="Remove the folder itself with rm -r.")
    folder = store.run(found.run)
    with exclusive(store, found.run, services):
        if found.folder.path in needed_folders(services):
            raise InUse(f"{found} is needed by an action that was cut off.", hint="Finish it first: ckptctl recover")
        if not force:
            removal.require_removable(store, found.run, found.id)
        taken = take_out(store, catalog.read_entry(folder, found.id))
        removal.settle(folder, catalog.list_snapshots(store, found.run))
    for rubbish in taken.rubbish:
        removal.delete(rubbish)
    reclaim(store, found.run, services)
    return Removed(found.id, found.run, users_own(found.folder), taken.warnings)


def exclusive(store: Store, run: str, services: Services) -> AbstractContextManager[None]:
    """The lock under which snapshots of a run are taken out: nobody dumps to it or restores from it."""
    wait_s, interrupt = services.lock_wait_s, services.interrupt
    return locks.run_lock(store, run, locks.Intent.EXCLUSIVE, services.owner, wait_s=wait_s, interrupt=interrupt)


def needed_folders(services: Services) -> frozenset[Path]:
    """The folders of snapshots that an action on this host needs, under way or cut off. Raises FileTrouble."""
    entries = journal.open_entries(services.host_state.journal, services.owner)
    return frozenset(found.entry.folder for found in entries if isinstance(found, journal.OpenEntry))


def take_out(store: Store, entry: Entry) -> TakenOut:
    """Move a snapshot into the trash, and let go what its dump left in the kernel.

    The caller holds the lock, and calls `removal.settle` afterwards. Raises FileTrouble and NoSpace; then it is where
    it was.
    """
    # A job that went on has its connections itself; those of one that was ended wait for the restore.
    waiting = entry.manifest is None or entry.manifest.ended
    images = _images(entry.folder) if waiting else None
    rubbish = [removal.put_in_trash(store, entry.folder.path)]
    with suppress(FileTrouble, NoSpace):  # mostly there are none, and `prune` finds what stays
        rubbish.append(removal.put_in_trash(store, entry.folder.beside("logs")))
    return TakenOut(tuple(rubbish), _forget_connections(images) if images is not None else ())


def users_own(folder: SnapshotFolder) -> tuple[Path, ...]:
    """The folders beside a snapshot with data of the user's in them, which nobody removes unasked."""
    return tuple(path for kind in USERS_OWN if _holds_something(path := folder.beside(kind)))


def _images(folder: SnapshotFolder) -> Images | None:
    """What the images say, None where they are damaged: that is no reason to keep them."""
    try:
        return read_images(folder.images)
    except (ImageDamaged, FileTrouble):
        return None


def _forget_connections(images: Images) -> tuple[str, ...]:
    """Remove the packet filter that keeps connections of a job that was ended for its restore, which cannot be now."""
    try:
        network.release_connections(images, {})
    except network.ConnectionsLocked as error:
        return (f"{error.message} {error.hint}",)
    return ()


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
