"""Taking a snapshot out of its run: out of sight by one rename into the trash, deleted afterwards.

The rename is all that needs the run's lock, however large the snapshot is; deleting can be cut off and begun again.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store import best, catalog, links
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import RunFolder, Store


class LastSnapshot(CkptctlError):
    """The only snapshot of a run would be removed."""

    code = "E_LAST_SNAPSHOT"
    exit_status = ExitStatus.STORE


class Pinned(CkptctlError):
    """A pinned snapshot would be removed."""

    code = "E_PINNED"
    exit_status = ExitStatus.STORE


def require_removable(store: Store, run: str, snapshot_id: str) -> None:
    """Refuse what only force may remove: the last sound snapshot of a run, and a pinned one.

    Raises LastSnapshot, Pinned, files.FileTrouble.
    """
    entries = catalog.list_snapshots(store, run)
    if not any(entry.sound for entry in entries if entry.id != snapshot_id):
        raise LastSnapshot(
            f"Without {snapshot_id} the run {run} has no sound snapshot left.",
            hint="Remove it all the same with --force.",
        )
    pin = next((entry.pin for entry in entries if entry.id == snapshot_id), None)
    if pin is not None:
        because = f": {pin.reason}" if pin.reason else ""
        raise Pinned(
            f"{snapshot_id} of the run {run} is pinned{because}.",
            hint=f"Take the pin away (`ckptctl unpin {snapshot_id}`), or remove it all the same with --force.",
        )


def put_in_trash(store: Store, path: Path) -> Path:
    """Move a folder of the store into its trash by one rename, durably, and return where it is now.

    Raises files.FileTrouble and files.NoSpace; then it is where it was.
    """
    files.make_private_folder(store.trash)
    rubbish = store.trash / f"{path.name}.{os.urandom(4).hex()}"
    try:
        path.rename(rubbish)
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be removed") from error
    try:
        files.fsync_folder(path.parent)
    except OSError as error:
        # What a crash could bring back must not be deleted.
        failure = files.trouble(error, f"{path} cannot be removed for good")
        try:
            rubbish.rename(path)
        except OSError as second:
            failure.add_note(f"It stays at {rubbish}, because it cannot be taken back: {second}")
        raise failure from error
    return rubbish


def settle(run: RunFolder, entries: Sequence[Entry]) -> None:
    """After removals: the links name what is left (`entries`), and the folder of a run without anything in it goes.

    Safe to call again. Raises files.FileTrouble.
    """
    links.repair(run, [entry.id for entry in entries if entry.sound])
    by = best.remembered(run)
    found = catalog.best_entry(entries, by) if by else None
    links.set_best(run, found.id if found else None)
    if not entries:
        best.forget(run)
        _remove_empty(run)


def delete(path: Path) -> None:
    """Delete a folder with everything in it, or as much of it as can be; one that is gone is no harm.

    Raises files.FileTrouble with the first thing that could not be deleted.
    """
    failures: list[OSError] = []

    def note(_function: object, _path: str, failure: tuple[type[BaseException], BaseException, object]) -> None:
        if isinstance(failure[1], OSError) and not isinstance(failure[1], FileNotFoundError):
            failures.append(failure[1])

    shutil.rmtree(path, onerror=note)
    if failures:
        raise files.trouble(failures[0], f"{path} cannot be deleted") from failures[0]


def disk_bytes(path: Path) -> int:
    """What a folder takes on the disk with everything in it; 0 for what is gone or cannot be looked at.

    Of a file that others have too, as snapshots share containers, it is charged its share.
    """
    total = 0
    try:
        status = path.lstat()
        links = 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        total += status.st_blocks * 512 // max(links, 1)
        entries = list(os.scandir(path)) if path.is_dir() and not path.is_symlink() else []
    except OSError:
        return total
    return total + sum(disk_bytes(Path(entry.path)) for entry in entries)


def _remove_empty(run: RunFolder) -> None:
    """Remove the folder of a run without snapshots; it stays if anything else is in it, or a dump just came."""
    try:
        run.path.rmdir()
    except OSError:
        return
