"""What is about to happen to a live tree, written down before it happens: for the day ckptctl itself is killed.

One file for each dump and restore under way, in a folder of this host. A file that is there although its owner is
dead names a tree that may stand still, a staging folder that nobody needs, or files that were moved aside.
The recovery itself looks at the real state; the journal only says where to look and what was wanted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from ckptctl import files
from ckptctl.process.identity import ProcessId
from ckptctl.store import codec
from ckptctl.store.codec import Count, Misshapen, Pid, Size, UserId
from ckptctl.store.names import is_snapshot_id
from ckptctl.store.owner import Liveness, Owner

_VERSION = 1


class Action(StrEnum):
    """What is being done."""

    DUMP = "dump"
    RESTORE = "restore"


class Phase(StrEnum):
    """How far it has come. Each is written down before what it names begins, save the ones that say "has"."""

    PREPARED = "prepared"  # the tree and its files are untouched
    # of a dump
    MOVING_DEVICE_MEMORY = "moving device memory"  # CUDA locks and checkpoints: the GPU processes may stand still
    FREEZING = "freezing"  # criu is at work: the tree may stand still
    FROZEN = "frozen"  # criu has ended; the tree stands still (to be ended) or goes on
    COMMITTING = "committing"  # the rename: it has happened if `final` is there
    ENDING = "ending"  # the snapshot has been committed; the tree is being ended
    # of a restore
    MOVING_FILES = "moving files"  # files are being put back to their size; `moved` are the ones to come
    RESTORING = "restoring"  # criu is at work: half a tree may be there
    RESTORED = "restored"  # criu has ended well; the tree is being looked at


@dataclass(frozen=True, slots=True)
class TreeProcess:
    """A process of the tree, named so that another one with the same pid is not mistaken for it."""

    pid: Annotated[Pid, "in the PID namespace of ckptctl"]
    start_ticks: Annotated[Count, "when it started, in clock ticks after boot"]

    @property
    def identity(self) -> ProcessId:
        """The process, to be acted on."""
        return ProcessId(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class MovedFile:
    """A file that is put back to an earlier size before a restore, what was behind it kept in `tail`."""

    path: Annotated[Path, "the file"]
    size_before_bytes: Annotated[Size, "its size before it was cut"]
    size_after_bytes: Annotated[Size, "its size afterwards: that at the dump"]
    tail: Annotated[Path, "the file that holds what was cut off"]


@dataclass(frozen=True, slots=True)
class ReplacedFile:
    """A file in memory (/dev/shm) that is put in place from the snapshot before a restore."""

    path: Annotated[Path, "the file"]
    source: Annotated[Path, "its contents at the dump"]
    mode: Annotated[Count, "its permissions"]
    uid: Annotated[UserId, "its owner"]
    gid: Annotated[UserId, "its group"]
    former: Annotated[Path | None, "where what was there is kept; null where nothing was"]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One dump or restore under way."""

    id: Annotated[str, "id of the action; for a dump that of the snapshot"]
    action: Annotated[Action, "what is being done"]
    phase: Annotated[Phase, "how far it has come"]
    owner: Annotated[Owner, "the ckptctl that began it"]
    tree: Annotated[tuple[TreeProcess, ...], "the processes concerned; the root first. Empty before a restore"]
    folder: Annotated[Path, "where the snapshot is to be, or is restored from"]
    staging: Annotated[Path | None, "where a dump is built, or a restore keeps criu's log and pid file"] = None
    to_end: Annotated[bool, "whether the tree is to be ended after the dump"] = False
    stopped_before: Annotated[tuple[Pid, ...], "processes that were stopped before we came: to be left so"] = ()
    gpu: Annotated[tuple[Pid, ...], "processes with CUDA state, which must be brought back to running too"] = ()
    gpu_map: Annotated[Mapping[str, str], "UUIDs of GPUs at the dump, and of those that take their place"] = (
        dataclasses.field(default_factory=dict)
    )
    new_pid_namespace: Annotated[bool, "whether the tree is restored into a PID namespace of its own"] = False
    moved: Annotated[tuple[MovedFile, ...], "files put back to an earlier size, in the order in which it is done"] = ()
    replaced: Annotated[tuple[ReplacedFile, ...], "files in memory put in place, in the order in which it is done"] = ()
    recoverer: Annotated[Owner | None, "the ckptctl that finishes or undoes it, once its owner is dead"] = None

    def __post_init__(self) -> None:
        if not is_snapshot_id(self.id):
            raise ValueError(f"{self.id[:80]!a} is not an id")


class Record:
    """The journal's file of one action; held by whoever does it."""

    def __init__(self, path: Path, entry: JournalEntry) -> None:
        self._path = path
        self._entry = entry

    @property
    def entry(self) -> JournalEntry:
        """What is written down now."""
        return self._entry

    def advance(
        self,
        phase: Phase,
        *,
        tree: tuple[TreeProcess, ...] | None = None,
        moved: tuple[MovedFile, ...] | None = None,
        replaced: tuple[ReplacedFile, ...] | None = None,
    ) -> None:
        """Write down, durably, that `phase` begins, with the tree or the files that are known now.

        Raises files.FileTrouble and files.NoSpace; then the former entry is still there.
        """
        changed = dataclasses.replace(
            self._entry,
            phase=phase,
            tree=self._entry.tree if tree is None else tree,
            moved=self._entry.moved if moved is None else moved,
            replaced=self._entry.replaced if replaced is None else replaced,
        )
        self._write(changed)

    def close(self) -> None:
        """Remove the entry: nothing is left to be repaired. Safe to call again. Raises files.FileTrouble."""
        try:
            self._path.unlink(missing_ok=True)
            files.fsync_folder(self._path.parent)
        except OSError as error:
            raise files.trouble(error, f"The journal {self._path} cannot be removed") from error

    def _write(self, entry: JournalEntry) -> None:
        files.write_atomically(self._path, codec.dumps(entry, version=_VERSION))
        self._entry = entry


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """An entry found in the journal; `abandoned` when whoever had it in hand last is known to be dead."""

    path: Path
    entry: JournalEntry
    abandoned: bool


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """A file in the journal that cannot be read; `problem` says why. What it stood for is not known."""

    path: Path
    problem: str


def begin(folder: Path, entry: JournalEntry) -> Record:
    """Write down a new action in the journal `folder` (created where it is missing), durably.

    Raises files.FileTrouble and files.NoSpace.
    """
    files.make_private_folder(folder)
    return _written(folder / f"{entry.id}.json", entry)


def take_over(found: OpenEntry, recoverer: Owner) -> Record:
    """Make `recoverer` the one who finishes or undoes an abandoned action.

    Its owner stays written down: what a restore has brought up is told by being younger than that.
    The caller holds the lock of recovery, so that no two do. Raises files.FileTrouble and files.NoSpace.
    """
    return _written(found.path, dataclasses.replace(found.entry, recoverer=recoverer))


def open_entries(folder: Path, here: Owner) -> tuple[OpenEntry | DamagedEntry, ...]:
    """Everything in the journal `folder`, oldest first; empty where there is no such folder.

    Raises files.FileTrouble where the folder cannot be listed.
    """
    try:
        paths = sorted(folder.glob("[!.]*.json"))
        found = [_read(path, here) for path in paths]
    except OSError as error:
        raise files.trouble(error, f"The journal {folder} cannot be read") from error
    return tuple(item for item in found if item is not None)


def _written(path: Path, entry: JournalEntry) -> Record:
    record = Record(path, entry)
    record._write(entry)
    return record


def _read(path: Path, here: Owner) -> OpenEntry | DamagedEntry | None:
    try:
        raw = codec.loads(path.read_bytes())
        if raw.get("version") != _VERSION:
            return DamagedEntry(path, f"has the version {raw.get('version')!a}, not {_VERSION}")
        entry = codec.decode(JournalEntry, raw)
    except FileNotFoundError:
        return None  # its owner has just finished
    except (OSError, Misshapen) as error:
        return DamagedEntry(path, str(error))
    return OpenEntry(path, entry, (entry.recoverer or entry.owner).liveness(here) is Liveness.DEAD)
