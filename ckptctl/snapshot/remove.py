"""Removing a snapshot while nobody restores it."""

from __future__ import annotations

from dataclasses import dataclass

from ckptctl.errors import UsageError
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, locks
from ckptctl.store.layout import Store
from ckptctl.store.selectors import find


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed."""

    id: str
    run: str


def remove(store: Store, selector: str, run: str | None, *, force: bool, services: Services) -> Removed:
    """Remove the snapshot that the selector means.

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
        catalog.remove(store, found.run, found.id, force=force)
    return Removed(found.id, found.run)
