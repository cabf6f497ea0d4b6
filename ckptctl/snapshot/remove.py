"""Removing a snapshot while nobody restores it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.criu import network
from ckptctl.criu.container import ImageDamaged
from ckptctl.criu.images import read_images
from ckptctl.criu.records import Images
from ckptctl.errors import UsageError
from ckptctl.files import FileTrouble
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, locks
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.selectors import find

# Folders beside a snapshot that hold what its restores cut from the job's files, and what the job wrote since.
_USERS_OWN: Final = ("tails", "output")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed. `kept` are folders beside it with data of the user's: what restores cut from logs, and output.

    `warnings` say what could not be cleared away.
    """

    id: str
    run: str
    kept: tuple[Path, ...]
    warnings: tuple[str, ...]


def remove(store: Store, selector: str, run: str | None, *, force: bool, services: Services) -> Removed:
    """Remove the snapshot that the selector means, the logs of its restores, and what its dump left in the kernel.

    Raises NothingMatched, Ambiguous, Locked, LastSnapshot, FileTrouble, and UsageError for a folder of its own.
    """
    found = find(store, selector, run)
    if found.id is None or found.run is None:
        raise UsageError(f"{found} is not in the store.", hint="Remove the folder itself with rm -r.")
    with locks.run_lock(
        store,
        found.run,
        locks.Intent.EXCLUSIVE,
        services.owner,
        wait_s=services.lock_wait_s,
        interrupt=services.interrupt,
    ):
        images = _images(found.folder)
        catalog.remove(store, found.run, found.id, force=force)
        warnings = _forget_connections(images) if images is not None else ()
    kept = tuple(path for kind in _USERS_OWN if _holds_something(path := found.folder.beside(kind)))
    return Removed(found.id, found.run, kept, warnings)


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
    except FileNotFoundError:
        return False
