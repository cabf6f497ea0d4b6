"""The snapshot that a restore is about, falling back to `backup` where nobody named a damaged one."""

from __future__ import annotations

from dataclasses import dataclass

from ckptctl.events import Caution, Notice
from ckptctl.interrupt import Interrupted, Terminated
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.verify import verify
from ckptctl.store import manifest_json
from ckptctl.store.layout import SnapshotFolder, Store, require_own
from ckptctl.store.manifest import Manifest
from ckptctl.store.selectors import Found, NothingMatched, find


@dataclass(frozen=True, slots=True)
class Chosen:
    """The snapshot to restore; `store` is None for a folder outside of the store.

    `verified`: every byte has been read and was right.
    """

    folder: SnapshotFolder
    manifest: Manifest
    store: Store | None
    verified: bool


def choose(store: Store | None, selector: str, run: str | None, services: Services) -> Chosen:
    """Find the snapshot and read its manifest.

    What was chosen from the newest of several runs is said first.
    A damaged `latest` is replaced by `backup` of the same run, which is said; a snapshot that was named is not.
    A folder that others could alter is not trusted: CRIU does what its images say, with our rights.
    Raises NothingMatched, StoreUnsafe, Ambiguous, ManifestDamaged, ManifestTooNew, and what the interrupt raises.
    """
    found = find(store, selector, run)
    if found.of_runs > 1:
        newest = "the newest" if selector == "latest" else "of the run with the newest snapshot"
        services.reporter.report(Notice(f"{found} is {newest} of {found.of_runs} runs; another is named with --run."))
    if found.id is None:
        require_own(found.folder.path)
    if found.by_link and store is not None and found.run is not None:
        found, verified = _sound(found, store, found.run, services)
    else:
        verified = False
    return Chosen(found.folder, manifest_json.read(found.folder.manifest), store if found.id else None, verified)


def _sound(found: Found, store: Store, run: str, services: Services) -> tuple[Found, bool]:
    """The snapshot itself, or `backup` where it is damaged; and whether it is known to be sound."""
    try:
        verdict = verify(found.folder, read_data=True, services=services)
    except (Interrupted, Terminated) as error:
        error.outcome = "Nothing was changed."
        raise
    if verdict.sound:
        return found, True
    try:
        backup = find(store, "backup", run)
    except NothingMatched:
        return found, False
    damage = "; ".join(verdict.damages)
    services.reporter.report(Caution(f"{found} is damaged ({damage}); {backup} is restored instead.", "W_FELL_BACK"))
    return backup, False
