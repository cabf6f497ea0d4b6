"""Which snapshots a store holds, and how they stand."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ckptctl import files
from ckptctl.store import best, labels, links, manifest_json
from ckptctl.store.best import BestBy, Measured
from ckptctl.store.labels import Labels, LabelsDamaged, Pin
from ckptctl.store.layout import RunFolder, SnapshotFolder, Store
from ckptctl.store.manifest import Manifest
from ckptctl.store.manifest_json import ManifestDamaged, ManifestTooNew
from ckptctl.store.names import id_time, is_run_name, is_snapshot_id


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot in a store. Without a manifest it is damaged, or too new for this ckptctl; `problem` says why.

    `labels` is None where they cannot be read: it may be pinned.
    """

    folder: SnapshotFolder
    run: str
    id: str
    manifest: Manifest | None
    problem: str | None = None
    too_new: bool = False
    labels: Labels | None = field(default_factory=Labels)
    is_latest: bool = False
    is_backup: bool = False
    is_best: bool = False

    @property
    def created(self) -> datetime:
        """When the dump began; to the second where only the id says so."""
        return self.manifest.created if self.manifest else id_time(self.id)

    @property
    def sound(self) -> bool:
        """As far as its manifest and the last reading of its bytes tell."""
        verification = self.labels.verification if self.labels else None
        return self.manifest is not None and (verification is None or verification.sound)

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of the dump, or what was made of them since."""
        if self.labels is not None and self.labels.tags is not None:
            return self.labels.tags
        return self.manifest.tags if self.manifest else ()

    @property
    def measured(self) -> Measured | None:
        """Its metrics; None where it cannot be read."""
        if self.manifest is None:
            return None
        progress = self.manifest.progress
        return Measured(self.id, self.created, progress.step, progress.metrics, progress.metric_steps)

    @property
    def pin(self) -> Pin | None:
        return self.labels.pin if self.labels else None


def list_runs(store: Store) -> tuple[RunFolder, ...]:
    """The runs of the store, by name. Raises files.FileTrouble."""
    return tuple(store.run(name) for name in _folders(store.runs) if is_run_name(name))


def list_ids(run: RunFolder) -> tuple[str, ...]:
    """The ids of the run's snapshots, oldest first, whatever state they are in. Raises files.FileTrouble."""
    return tuple(name for name in _folders(run.path) if is_snapshot_id(name))


def list_snapshots(store: Store, run: str | None = None) -> tuple[Entry, ...]:
    """The snapshots of the store or of one run, oldest first, damaged ones too.

    Raises names.BadRunName and files.FileTrouble.
    """
    runs = list_runs(store) if run is None else (store.run(run),)
    entries = [entry for folder in runs for entry in _entries(folder)]
    return tuple(sorted(entries, key=lambda entry: (entry.created, entry.id)))


def newest(store: Store) -> datetime | None:
    """When the newest snapshot was begun, to the second; None in an empty store. Raises files.FileTrouble."""
    return max((id_time(name) for run in list_runs(store) for name in list_ids(run)), default=None)


def read_entry(run: RunFolder, snapshot_id: str) -> Entry:
    """One snapshot of a run, without whether it is the best; damage is noted in the entry, not raised."""
    folder = run.snapshot(snapshot_id)
    manifest, problem, too_new = None, None, False
    try:
        manifest = manifest_json.read(folder.manifest)
    except (ManifestDamaged, ManifestTooNew) as error:
        what = error.details.get("what")
        problem = error.message if what is None else f"{folder.manifest.name}: {what}."
        too_new = isinstance(error, ManifestTooNew)
    if manifest is not None and manifest.id != snapshot_id:
        problem = f"Its manifest is that of {manifest.id}."
        manifest = None
    return Entry(
        folder,
        run.name,
        snapshot_id,
        manifest,
        problem,
        too_new,
        labels=_labels(folder),
        is_latest=links.target(run, run.latest) == snapshot_id,
        is_backup=links.target(run, run.backup) == snapshot_id,
    )


def entry_of(store: Store | None, folder: SnapshotFolder, manifest: Manifest) -> Entry:
    """The entry of a snapshot that was read: of the store, or of a folder of its own. Raises files.FileTrouble."""
    if store is not None and is_run_name(folder.path.parent.name):
        run = store.run(folder.path.parent.name)
        entries = list_snapshots(store, run.name) if folder.path.parent == run.path else ()
        known = next((entry for entry in entries if entry.id == folder.name), None)
        if known is not None:
            return known
    return Entry(folder, manifest.run, manifest.id, manifest, labels=_labels(folder))


def best_entry(entries: Iterable[Entry], by: BestBy) -> Entry | None:
    """The best of a run's sound snapshots by this metric; None where none of them has it."""
    known = {entry.id: entry for entry in entries}
    ranked = best.best_first(by, [entry.measured for entry in known.values() if entry.measured and entry.sound])
    return known[ranked[0].id] if ranked else None


def _entries(run: RunFolder) -> list[Entry]:
    entries = [read_entry(run, name) for name in list_ids(run)]
    by = best.remembered(run)
    found = best_entry(entries, by) if by else None
    return [dataclasses.replace(entry, is_best=True) if entry is found else entry for entry in entries]


def _labels(folder: SnapshotFolder) -> Labels | None:
    try:
        return labels.read(folder)
    except LabelsDamaged:
        return None


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, none where it is missing; links are no folders."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be listed") from error
