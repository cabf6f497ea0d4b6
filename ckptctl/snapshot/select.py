"""The snapshot that a restore is about, falling back to `backup` where nobody named a damaged one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ckptctl.events import Caution, Notice
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.services import Services
from ckptctl.store import manifest_json
from ckptctl.store.layout import SnapshotFolder, Store, require_own
from ckptctl.store.manifest import Manifest
from ckptctl.store.manifest_json import ManifestDamaged
from ckptctl.store.selectors import Found, NothingMatched, find

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The snapshot to restore; `store` is None for a folder outside of the store."""

    folder: SnapshotFolder
    manifest: Manifest
    store: Store | None


def choose(store: Store | None, selector: str, run: str | None, services: Services) -> Chosen:
    """Find the snapshot and read its manifest.

    What was chosen from the newest of several runs is said first.
    A folder that others could alter is not trusted: CRIU does what its images say, with our rights.
    Raises NothingMatched, StoreUnsafe, Ambiguous, ManifestDamaged and ManifestTooNew.
    """
    return _chosen(_find(store, selector, run, services), store)


def restore_chosen(
    store: Store | None, selector: str, run: str | None, services: Services, restore: Callable[[Chosen], _Result]
) -> _Result:
    """Restore the snapshot; a damaged `latest` is replaced by `backup` of the same run, which is said.

    Damage is found while `restore` reads, before anything of the job runs, and it has put everything back by then.
    A snapshot that was named is not replaced. Raises as `choose` and `restore` do.
    """
    found = _find(store, selector, run, services)
    try:
        return restore(_chosen(found, store))
    except (SnapshotDamaged, ManifestDamaged) as error:
        backup = _backup(found, store)
        if backup is None:
            raise
        services.reporter.report(Caution(f"{error.message} {backup} is restored instead.", "W_FELL_BACK"))
    return restore(_chosen(backup, store))


def _find(store: Store | None, selector: str, run: str | None, services: Services) -> Found:
    found = find(store, selector, run)
    if found.of_runs > 1:
        newest = "the newest" if selector == "latest" else "of the run with the newest snapshot"
        services.reporter.report(Notice(f"{found} is {newest} of {found.of_runs} runs; another is named with --run."))
    if found.id is None:
        require_own(found.folder.path)
    return found


def _chosen(found: Found, store: Store | None) -> Chosen:
    return Chosen(found.folder, manifest_json.read(found.folder.manifest), store if found.id else None)


def _backup(found: Found, store: Store | None) -> Found | None:
    if not found.by_link:
        return None
    try:
        return find(store, "backup", found.run)
    except NothingMatched:
        return None
