"""Building a snapshot out of sight, and making it appear all at once.

A snapshot is built in a folder that no listing looks at, on the same file system as its place. One rename brings it
there: before it there is nothing, after it there is a whole snapshot on the disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.interrupt import Interrupt
from ckptctl.store.layout import SnapshotFolder, Store

_PRIVATE_PROGRAM: Final = 0o700
# What renameat2(2) answers where it cannot exchange.
_NO_SWAP: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


class TargetNotEmpty(CkptctlError):
    """A snapshot cannot be put where something is already."""

    code = "E_TARGET_NOT_EMPTY"
    exit_status = ExitStatus.STORE


class TargetIsMount(CkptctlError):
    """A snapshot cannot replace the top folder of a file system."""

    code = "E_TARGET_IS_MOUNT"
    exit_status = ExitStatus.STORE


class CannotReplace(CkptctlError):
    """A file system cannot exchange two folders by one rename."""

    code = "E_CANNOT_REPLACE"
    exit_status = ExitStatus.STORE


@dataclass(frozen=True, slots=True)
class Staging:
    """A snapshot that is being built in `folder` and is to appear at `final`."""

    folder: SnapshotFolder
    final: SnapshotFolder


def place_in_store(store: Store, run: str, snapshot_id: str) -> Staging:
    """Where a snapshot of the store is built and is to appear; nothing is created yet, see `create`.

    Raises names.BadRunName, TargetNotEmpty and files.FileTrouble.
    """
    staging = Staging(SnapshotFolder(store.staging / snapshot_id), store.run(run).snapshot(snapshot_id))
    _refuse_occupied(staging.final.path)
    return staging


def place_beside(target: Path, snapshot_id: str) -> Staging:
    """Where a snapshot is built that becomes `target`, which must not exist or be an empty folder; see `create`.

    Raises TargetNotEmpty, TargetIsMount and files.FileTrouble.
    """
    final = target.resolve()
    _refuse_occupied(final)
    if final.is_mount():
        raise TargetIsMount(
            f"{target} is the top of a file system; a snapshot appears by a rename, which cannot replace that.",
            hint=f"Name a folder in it: {target / 'snapshot'}",
        )
    return Staging(SnapshotFolder(final.parent / f".{final.name}.ckptctl-{snapshot_id}"), SnapshotFolder(final))


def create(staging: Staging) -> None:
    """Make the empty staging folder (0700, with `images` and `logs`).

    Whoever keeps a journal writes the place down before, so that no crash leaves a folder that nobody knows.
    Raises files.FileTrouble and files.NoSpace.
    """
    for path in (staging.folder.path, staging.folder.images, staging.folder.logs):
        files.make_private_folder(path, exist_ok=False)


def commit(staging: Staging, interrupt: Interrupt) -> None:
    """Bring the snapshot to the disk and let it appear at its final place, all at once.

    Interrupted only before the rename. Whatever is raised, nothing has appeared and the staging folder is as it was.
    Raises TargetNotEmpty, files.FileTrouble, files.NoSpace and what `interrupt` raises.
    """
    folder, final = staging.folder.path, staging.final.path
    try:
        _make_private_and_durable(staging.folder)
        interrupt.check()
        if not final.parent.is_dir():
            files.make_private_folder(final.parent)
            files.fsync_folder(final.parent.parent)
        # rename(2) puts a folder in the place of an empty one, and of nothing else.
        folder.rename(final)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise _occupied(final) from error
        raise files.trouble(error, f"The snapshot cannot be put at {final}") from error
    _make_rename_durable(folder, final)


def make_durable(staging: Staging) -> None:
    """Bring what is there to the disk already: what `commit` and `replace` do under a lock is quick then.

    Raises files.FileTrouble, files.NoSpace.
    """
    try:
        _make_private_and_durable(staging.folder)
    except OSError as error:
        raise files.trouble(error, f"{staging.folder.path} cannot be brought to the disk") from error


def replace(staging: Staging, interrupt: Interrupt) -> None:
    """Bring the snapshot to the disk and put it in place of the one that is there, all at once; see `commit`.

    The former is then in the staging folder. Raises CannotReplace, files.FileTrouble, files.NoSpace and what
    `interrupt` raises: then nothing was replaced.
    """
    folder, final = staging.folder.path, staging.final.path
    try:
        _make_private_and_durable(staging.folder)
        interrupt.check()
        files.swap(folder, final)
    except OSError as error:
        if error.errno in _NO_SWAP:
            raise CannotReplace(
                f"The file system of {final} cannot put one folder in place of another.",
                hint="Copy the snapshot elsewhere (ckptctl export --images stream --compress better).",
            ) from error
        raise files.trouble(error, f"The snapshot at {final} cannot be replaced") from error
    try:
        for parent in (final.parent, folder.parent):
            files.fsync_folder(parent)
    except OSError as error:
        failure = files.trouble(error, f"The folder of {final} cannot be brought to the disk")
        try:
            files.swap(folder, final)
        except OSError as second:
            failure.add_note(f"The new one stays at {final}, because it cannot be taken back: {second}")
        raise failure from error


def is_committed(staging: Staging) -> bool:
    """Whether the rename has happened: for the recovery after a crash. Staging is gone and the place is taken."""
    return not os.path.lexists(staging.folder.path) and staging.final.manifest.is_file()


def discard(folder: SnapshotFolder) -> None:
    """Remove a staging folder and everything in it. Safe to call again. Raises files.FileTrouble."""
    try:
        shutil.rmtree(folder.path)
    except (FileNotFoundError, NotADirectoryError):
        return  # it was never made
    except OSError as error:
        raise files.trouble(error, f"The staging folder {folder.path} cannot be removed") from error


def _refuse_occupied(final: Path) -> None:
    try:
        if os.path.lexists(final) and (not final.is_dir() or any(os.scandir(final))):
            raise _occupied(final)
    except OSError as error:
        raise files.trouble(error, f"{final} cannot be looked at") from error


def _occupied(final: Path) -> TargetNotEmpty:
    return TargetNotEmpty(
        f"{final} is there already and is not an empty folder.", hint="Name a folder that does not exist yet."
    )


def _make_private_and_durable(folder: SnapshotFolder) -> None:
    """0600 and 0700, whatever a umask or CRIU did, then fsync of files before that of the folders that name them."""
    from ckptctl.store.digests import fsync_all  # with it comes the library for digests

    paths = list(files.walk_regular_files(folder.path))
    for path in paths:
        allowed = _PRIVATE_PROGRAM if path == folder.restore_script else files.PRIVATE_FILE
        if stat.S_IMODE(path.lstat().st_mode) != allowed:
            path.chmod(allowed)
    fsync_all(paths)
    for inner, _, _ in os.walk(folder.path, topdown=False):
        Path(inner).chmod(files.PRIVATE_FOLDER)
        files.fsync_folder(Path(inner))


def _make_rename_durable(folder: Path, final: Path) -> None:
    """fsync both parents; where that fails, take the rename back, so that a failed commit has left nothing behind."""
    try:
        for parent in {final.parent, folder.parent}:
            files.fsync_folder(parent)
    except OSError as error:
        failure = files.trouble(error, f"The folder of {final} cannot be brought to the disk")
        try:
            final.rename(folder)
        except OSError as second:
            failure.add_note(f"The snapshot stays at {final}, because it cannot be taken back: {second}")
        raise failure from error
