"""Pins, tags and the outcome of a verification: what is said of a snapshot after its dump."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.events import Caution
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.interrupt import Never
from ckptctl.snapshot.services import Services
from ckptctl.store import catalog, labels, locks
from ckptctl.store.catalog import Entry
from ckptctl.store.labels import Labels, LabelsDamaged, Pin, Verification
from ckptctl.store.layout import SnapshotFolder, Store, store_of
from ckptctl.store.locks import Locked
from ckptctl.store.selectors import Found

Change = Callable[[Entry, Labels], Labels]

# Others hold the lock for milliseconds.
_NOTE_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """A snapshot with its labels as they are now; `changed` says whether they were others before."""

    id: str
    run: str
    pin: Pin | None
    tags: tuple[str, ...]
    changed: bool


def pin(store: Store, found: Found, reason: str | None, services: Services) -> Labelled:
    """Keep the snapshot whatever the policy says; on one that is pinned already the reason is replaced.

    Raises UsageError for a folder outside the store, LabelsDamaged, Locked, FileTrouble, NoSpace.
    """
    return _change(
        store,
        found,
        lambda _, former: dataclasses.replace(
            former, pin=Pin(former.pin.since if former.pin else services.now(), reason)
        ),
        services,
    )


def unpin(store: Store, found: Found, services: Services) -> Labelled:
    """Take the pin away; no pin is no failure. Raises as `pin`."""
    return _change(store, found, lambda _, former: dataclasses.replace(former, pin=None), services)


def tag(store: Store, found: Found, add: Sequence[str], remove: Sequence[str], services: Services) -> Labelled:
    """Give the snapshot tags and take others away; one that is in both goes. Raises as `pin`."""

    def changed(entry: Entry, former: Labels) -> Labels:
        tags = tuple(name for name in dict.fromkeys((*entry.tags, *add)) if name not in remove)
        return former if tags == entry.tags else dataclasses.replace(former, tags=tags)

    return _change(store, found, changed, services)


def note_verification(folder: SnapshotFolder, *, sound: bool, services: Services) -> None:
    """Write down that every byte was read, and whether all were right; retention goes by it.

    Where that cannot be written it is said, and no failure: the verification itself was done. No interrupt is heeded:
    a job that runs again by now does so whether ckptctl is asked to stop or not.
    """
    store = store_of(folder.path)
    if store is None:
        return
    found = Found(folder, folder.path.parent.name, folder.name)
    verification = Verification(services.now(), sound)
    soon = dataclasses.replace(services, interrupt=Never(), lock_wait_s=_NOTE_WAIT_S)
    try:
        _change(store, found, lambda _, former: dataclasses.replace(former, verification=verification), soon)
    except (Locked, FileTrouble, NoSpace, LabelsDamaged) as error:
        text = f"That {folder.name} was verified cannot be written down: {error.message}"
        services.reporter.report(Caution(text, "W_NOT_WRITTEN_DOWN"))


def _change(store: Store, found: Found, change: Change, services: Services) -> Labelled:
    if found.id is None or found.run is None:
        raise UsageError(f"{found} is not in the store.", hint="Only snapshots of the store have pins and tags.")
    wait_s, interrupt = services.lock_wait_s, services.interrupt
    with locks.labels_lock(store, found.run, services.owner, wait_s=wait_s, interrupt=interrupt):
        former = labels.read(found.folder)
        changed = change(catalog.read_entry(store.run(found.run), found.id), former)
        if changed != former:
            labels.write(found.folder, changed)
    entry = catalog.read_entry(store.run(found.run), found.id)
    return Labelled(found.id, found.run, entry.pin, entry.tags, changed != former)
