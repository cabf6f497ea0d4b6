"""Where everything lies in a store and in a snapshot. No path is joined anywhere else."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store.names import check_run_name, is_snapshot_id


class StoreMissing(CkptctlError):
    """There is no store where one was expected."""

    code = "E_STORE_MISSING"
    exit_status = ExitStatus.STORE


class StoreUnsafe(CkptctlError):
    """Somebody else could alter what is restored from here."""

    code = "E_STORE_UNSAFE"
    exit_status = ExitStatus.STORE


@dataclass(frozen=True, slots=True)
class SnapshotFolder:
    """One snapshot on disk, in a store, in staging or in a folder of its own."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def restore_script(self) -> Path:
        return self.path / "restore.sh"

    @property
    def labels(self) -> Path:
        """Its pin and its tags: the one file in it that changes after the dump."""
        return self.path / "labels.json"

    def beside(self, kind: str) -> Path:
        """The folder for what restores leave (`logs`, `tails`, `output`): what was dumped is never written to."""
        return self.path.with_name(f"{self.name}.{kind}")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The snapshots of one run, and the links to some of them."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def latest(self) -> Path:
        return self.path / "latest"

    @property
    def backup(self) -> Path:
        return self.path / "backup"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def best_by(self) -> Path:
        """By which metric a snapshot is the best."""
        return self.path / "best.json"

    @property
    def output(self) -> Path:
        """The folder for what a supervised job writes; a restore puts these files back to their size."""
        return self.path / "output"

    @property
    def stdout(self) -> Path:
        """What a supervised job writes to its standard output; appended to from one start to the next."""
        return self.output / "stdout.log"

    @property
    def stderr(self) -> Path:
        """The same for its standard error."""
        return self.output / "stderr.log"

    @property
    def supervision(self) -> Path:
        """What the supervisor knows of its job, for `status` and for the next supervisor."""
        return self.path / "supervision.json"

    @property
    def heartbeat(self) -> Path:
        """The file that the supervisor touches while it lives, for those on other machines."""
        return self.path / "heartbeat"

    @property
    def job_status(self) -> Path:
        """The file in which the job reports its step, epoch and metrics ($CKPTCTL_STATUS)."""
        return self.path / "job-status.json"

    @property
    def job_exit(self) -> Path:
        """Where the keeper of the job writes down how it ended."""
        return self.path / "job-exit.json"

    @property
    def hooks_log(self) -> Path:
        """What the user's hooks print."""
        return self.path / "hooks.log"

    @property
    def recompress_log(self) -> Path:
        """What the last compression in the background said."""
        return self.path / "recompress.log"

    @property
    def snapshot_request(self) -> Path:
        """Whoever creates this file asks for a snapshot now."""
        return self.path / "CKPT_NOW"

    def snapshot(self, snapshot_id: str) -> SnapshotFolder:
        """The folder for this id, which need not exist. ValueError for what is no id: nothing else becomes a path."""
        if not is_snapshot_id(snapshot_id):
            raise ValueError(f"{snapshot_id!r} is not an id of a snapshot")
        return SnapshotFolder(self.path / snapshot_id)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder that holds runs. `path` is absolute and without links; made by `open_store` and `create_store`."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def staging(self) -> Path:
        return self.path / "staging"

    @property
    def trash(self) -> Path:
        return self.path / "trash"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def reserve(self) -> Path:
        """A file that holds space for one lock: what removes snapshots must work on a full disk."""
        return self.locks / "reserve"

    def run(self, name: str) -> RunFolder:
        """The folder of this run, which need not exist. Raises BadRunName."""
        return RunFolder(self.runs / check_run_name(name))


def open_store(path: Path) -> Store:
    """The store that exists at `path`, which may be a link to it.

    Raises StoreMissing, StoreUnsafe and files.FileTrouble.
    """
    store = Store(path.resolve())
    try:
        there = store.runs.is_dir()
    except OSError as error:
        raise files.trouble(error, f"The store {path} cannot be looked at") from error
    if not there:
        raise StoreMissing(f"There is no store at {path}.", hint="The first dump creates it; or name one with --store.")
    for folder in (store.path, store.runs):
        require_own(folder)
    return store


def create_store(path: Path) -> Store:
    """The store at `path`, created (0700) where it is missing; safe to call from several processes at once.

    Raises StoreUnsafe, files.FileTrouble and files.NoSpace.
    """
    store = Store(path.resolve())
    files.make_private_folder(store.path)
    require_own(store.path)
    for folder in (store.staging, store.trash, store.locks, store.runs):
        files.make_private_folder(folder)
    files.reserve(store.reserve)
    return store


def store_of(snapshot: Path) -> Store | None:
    """The store in which a snapshot's folder lies, STORE/runs/RUN/ID; None where it lies elsewhere."""
    runs = snapshot.parent.parent
    store = Store(runs.parent)
    return store if runs == store.runs and store.locks.is_dir() and is_snapshot_id(snapshot.name) else None


def require_own(folder: Path) -> None:
    """Refuse a folder that another user owns or may write to; being readable is no danger, snapshots are 0700.

    CRIU restores what the images say, with the rights of whoever restores: who can alter a snapshot of root is root.
    Root's own folders are as good as one's own. Raises StoreUnsafe, files.FileTrouble.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise files.trouble(error, f"{folder} cannot be looked at") from error
    user = os.geteuid()
    if status.st_uid not in {user, 0}:
        raise StoreUnsafe(
            f"{folder} belongs to the user with id {status.st_uid}, not to you ({user}): "
            "they could alter what you restore.",
            hint=f"Use a store of your own (--store), or take this one over: chown -R {user} {folder}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreUnsafe(
            f"Other users may write to {folder} (mode {stat.S_IMODE(status.st_mode):04o}): "
            "they could alter what you restore.",
            hint=f"chmod go-w {folder}",
        )
