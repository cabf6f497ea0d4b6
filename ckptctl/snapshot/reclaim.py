"""Giving back what is dead in the containers that the snapshots of a run share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ckptctl.files import FileTrouble, NoSpace
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, locks, packs
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import Store
from ckptctl.store.locks import Locked

# The index of 1 GiB is looked through in some 20 ms.
_QUICK_BYTES: Final = 64 << 30


def reclaim(store: Store, run: str, services: Services, *, quick: bool = False) -> int:
    """The bytes given back; after snapshots of the run were deleted. Killed anywhere it has done no harm.

    What is in use now, or cannot be looked at, waits for the next time. `quick`: so do runs that take seconds to look
    at. Raises what the interrupt raises.
    """
    try:
        if not _worth_it(catalog.list_snapshots(store, run), quick=quick):
            return 0
        intent, interrupt = locks.Intent.EXCLUSIVE, services.interrupt
        with locks.run_lock(store, run, intent, services.owner, wait_s=0, interrupt=interrupt):
            return packs.reclaim(catalog.list_snapshots(store, run))
    except (Locked, FileTrouble, NoSpace):
        return 0


def _worth_it(entries: Sequence[Entry], *, quick: bool) -> bool:
    images = [entry.manifest.images for entry in entries if entry.manifest]
    if not any(one.container and one.container.packs for one in images):
        return False
    return not quick or sum(one.contents_bytes for one in images) <= _QUICK_BYTES
