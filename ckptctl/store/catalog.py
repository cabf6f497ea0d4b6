"""Which snapshots a store holds, which one a selector means, and taking one out of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store import links, manifest_json
from ckptctl.store.layout import RunFolder, SnapshotFolder, Store
from ckptctl.store.manifest import Manifest
from ckptctl.store.manifest_json import ManifestDamaged, ManifestTooNew
from ckptctl.store.names import id_time, is_run_name, is_snapshot_id


class LastSnapshot(CkptctlError):
    """The only snapshot of a run would be removed."""

    code = "E_LAST_SNAPSHOT"
    exit_status = ExitStatus.STORE


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot in a store. Without a manifest it is damaged, and `problem` says why."""

    folder: SnapshotFolder
    run: str
    id: str
    manifest: Manifest | None
    problem: str | None = None
    is_latest: bool = False
    is_backup: bool = False

    @property
    def created(self) -> datetime:
        """When the dump began; to the second where only the id says so."""
        return self.manifest.created if self.manifest else id_time(self.id)


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
    """One snapshot of a run; damage is noted in the entry, not raised."""
    folder = run.snapshot(snapshot_id)
    manifest, problem = None, None
    try:
        manifest = manifest_json.read(folder.manifest)
    except (ManifestDamaged, ManifestTooNew) as error:
        problem = error.message
    if manifest is not None and manifest.id != snapshot_id:
        problem = f"Its manifest is that of {manifest.id}."
        manifest = None
    latest = links.target(run, run.latest) == snapshot_id
    backup = links.target(run, run.backup) == snapshot_id
    return Entry(folder, run.name, snapshot_id, manifest, problem, latest, backup)


def remove(store: Store, run: str, snapshot_id: str, *, force: bool = False) -> None:
    """Take a snapshot out of the store: out of sight by one rename, then deleted; the links are repaired.

    The logs of its restores go with it; other folders beside it stay.

    Leaving a run without any sound snapshot takes `force`. The caller holds the run's exclusive lock.
    What a crash leaves in the trash goes with `empty_trash`. Raises LastSnapshot, files.FileTrouble.
    """
    folder = store.run(run)
    others = [entry for entry in _entries(folder) if entry.id != snapshot_id]
    if not force and not any(entry.manifest for entry in others):
        raise LastSnapshot(
            f"Without {snapshot_id} the run {run} has no sound snapshot left.",
            hint="Remove it all the same with --force.",
        )
    rubbish = store.trash / f"{snapshot_id}.{os.urandom(4).hex()}"
    try:
        folder.snapshot(snapshot_id).path.rename(rubbish)
        files.fsync_folder(folder.path)
    except OSError as error:
        raise files.trouble(error, f"{snapshot_id} cannot be removed") from error
    links.repair(folder, [entry.id for entry in others if entry.manifest])
    _delete(rubbish)
    _delete(folder.snapshot(snapshot_id).beside("logs"))
    if not others:
        _remove_empty(folder)


def empty_trash(store: Store) -> None:
    """Delete what was removed and still takes space. The caller holds the store's exclusive lock.

    Raises files.FileTrouble.
    """
    for name in _folders(store.trash):
        _delete(store.trash / name)


def _entries(run: RunFolder) -> list[Entry]:
    return [read_entry(run, name) for name in list_ids(run)]


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, none where it is missing; links are no folders."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be listed") from error


def _delete(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be deleted") from error


def _remove_empty(run: RunFolder) -> None:
    """Remove the folder of a run without snapshots; it stays if anything else is in it, or a dump just came."""
    try:
        run.path.rmdir()
    except OSError:
        return
