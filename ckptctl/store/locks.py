"""Locks by intent: files in a folder that say who does what to which things.

One mechanism for runs of a store (the folder lies in the store, maybe on a file system shared by machines) and for
process trees (a folder of this host). A lock names several resources at once, so that trees that overlap are found.
A lock whose owner is dead is removed by whoever meets it; one of another host never is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.interrupt import Interrupt
from ckptctl.process.identity import ProcessId
from ckptctl.store import codec
from ckptctl.store.codec import Misshapen
from ckptctl.store.layout import Store
from ckptctl.store.owner import Liveness, Owner

_VERSION: Final = 1
_POLL_S: Final = 0.1
_SUPERVISOR: Final = "supervisor"
_RECOMPRESSION: Final = "recompression"
# What the names of resources begin with, for people; those with names of their own are in `_in_use`.
_SUBJECTS: Final = {
    "store": "The store",
    "labels": "What is said of the snapshots",
    "recovery": "What was left unfinished",
}
# What flock(2) answers on file systems that cannot: Lustre without its option, some FUSE ones.
_NO_FLOCK: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class Locked(CkptctlError):
    """Somebody else is at work on the same thing.

    `details` has the `lock`, the `host` and `pid` of its owner, and whether it is `out_of_sight`: on another machine or
    in another PID namespace, so that nobody here can tell whether it lives.
    """

    code = "E_LOCKED"
    exit_status = ExitStatus.LOCKED


class Intent(StrEnum):
    """What one wants to do: any number may read and append at the same time; exclusive means alone."""

    READ = "read"
    APPEND = "append"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class Want:
    """A resource and what is to be done with it."""

    resource: Annotated[str, "its name"]
    intent: Annotated[Intent, "what is to be done"]

    def conflicts(self, other: Want) -> bool:
        """Whether the two cannot be at the same time."""
        return self.resource == other.resource and Intent.EXCLUSIVE in {self.intent, other.intent}


@dataclass(frozen=True, slots=True)
class _Lock:
    """The contents of a lock file."""

    owner: Annotated[Owner, "who holds it"]
    wants: Annotated[tuple[Want, ...], "what it covers"]


@contextmanager
def tree_lock(
    folder: Path, tree: Sequence[ProcessId], owner: Owner, *, wait_s: float, interrupt: Interrupt
) -> Iterator[None]:
    """Be the only one who dumps or ends any of these processes; `folder` is one of this host. See `hold`."""
    wants = [Want(f"process:{process.pid}:{process.start_ticks}", Intent.EXCLUSIVE) for process in tree]
    with hold(folder, wants, owner, wait_s=wait_s, interrupt=interrupt):
        yield


@contextmanager
def run_lock(
    store: Store, run: str, intent: Intent, owner: Owner, *, wait_s: float, interrupt: Interrupt
) -> Iterator[None]:
    """Work in one run; whoever has the whole store for himself keeps this out, and the other way round. See `hold`."""
    on_store = Intent.READ if intent is Intent.READ else Intent.APPEND
    wants = [Want("store", on_store), Want(f"run:{run}", intent)]
    reserve = store.reserve if intent is Intent.EXCLUSIVE else None
    with hold(store.locks, wants, owner, wait_s=wait_s, interrupt=interrupt, reserve=reserve):
        yield


@contextmanager
def labels_lock(store: Store, run: str, owner: Owner, *, wait_s: float, interrupt: Interrupt) -> Iterator[None]:
    """Change what is said of a run's snapshots; dumps and restores go on beside it, a removal does not. See `hold`."""
    wants = [Want("store", Intent.APPEND), Want(f"run:{run}", Intent.READ), Want(f"labels:{run}", Intent.EXCLUSIVE)]
    with hold(store.locks, wants, owner, wait_s=wait_s, interrupt=interrupt):
        yield


@contextmanager
def recompress_lock(store: Store, run: str, owner: Owner, *, wait_s: float, interrupt: Interrupt) -> Iterator[None]:
    """Be the only one who writes snapshots of a run anew; dumps, restores and removals go on beside it. See `hold`."""
    wants = [Want(f"{_RECOMPRESSION}:{run}", Intent.EXCLUSIVE)]
    with hold(store.locks, wants, owner, wait_s=wait_s, interrupt=interrupt):
        yield


@contextmanager
def store_lock(store: Store, intent: Intent, owner: Owner, *, wait_s: float, interrupt: Interrupt) -> Iterator[None]:
    """Work on the store as a whole. See `hold`."""
    reserve = store.reserve if intent is Intent.EXCLUSIVE else None
    with hold(store.locks, [Want("store", intent)], owner, wait_s=wait_s, interrupt=interrupt, reserve=reserve):
        yield


@contextmanager
def hold(
    folder: Path,
    wants: Sequence[Want],
    owner: Owner,
    *,
    wait_s: float,
    interrupt: Interrupt,
    reserve: Path | None = None,
) -> Iterator[Path]:
    """Hold a lock on all of `wants` in this block; wait up to `wait_s` seconds for whoever is in the way.

    On a full disk the lock takes the space of `reserve`, a file in `folder`, and gives it back.
    Yields the lock's file: somebody who takes us for dead removes it.
    Not reentrant: a second one of the same process conflicts like any other.
    Raises Locked, files.FileTrouble, files.NoSpace and what `interrupt` raises.
    """
    lock = _Lock(owner, tuple(wants))
    path = _acquire(folder, lambda: _try(folder, lock, reserve), wait_s, interrupt)
    try:
        yield path
    finally:
        # Left behind it would go stale with this process; that must not hide what the block raised.
        with suppress(OSError):
            _release(path, reserve)


def supervision_of(run: str) -> Want:
    """To be the only one who looks after the job of a run."""
    return Want(f"{_SUPERVISOR}:{run}", Intent.EXCLUSIVE)


def in_the_way(folder: Path, wants: Sequence[Want], owner: Owner) -> Locked | None:
    """Who else holds something of this; None where nobody does. Nothing is taken. Raises files.FileTrouble."""
    try:
        return _obstacle(folder, _Lock(owner, tuple(wants)), lambda _, other: other.owner.is_same(owner))
    except OSError as error:
        raise files.trouble(error, f"The lock folder {folder} cannot be used") from error


def sweep(folder: Path, here: Owner) -> None:
    """Remove the locks of owners that are dead: they hold nobody up, but somebody may wonder. Nothing is raised."""
    with suppress(OSError):
        for path in folder.glob("[!.]*.json"):
            with suppress(Misshapen):
                lock = _read(path)
                if lock is not None and lock.owner.liveness(here) is Liveness.DEAD:
                    path.unlink(missing_ok=True)


def _acquire(folder: Path, attempt: Callable[[], Path | Locked], wait_s: float, interrupt: Interrupt) -> Path:
    files.make_private_folder(folder)
    deadline = time.monotonic() + wait_s
    while True:
        interrupt.check()
        taken = attempt()
        if isinstance(taken, Path):
            return taken
        if time.monotonic() >= deadline:
            raise taken
        time.sleep(_POLL_S)


def _try(folder: Path, lock: _Lock, reserve: Path | None) -> Path | Locked:
    """Take the lock, or return why it cannot be had.

    The others are looked at once more after the file is written: where flock does not work, two who come at the same
    time then both give way, and never both go on.
    """
    path = folder / f"{lock.owner.pid}-{os.urandom(8).hex()}.json"
    try:
        with _mutex(folder), ExitStack() as given_up:
            obstacle = _obstacle(folder, lock, lambda other, _: other == path)
            if obstacle is None:
                given_up.callback(path.unlink, missing_ok=True)
                _write(path, codec.dumps(lock, version=_VERSION), reserve)
                obstacle = _obstacle(folder, lock, lambda other, _: other == path)
            if obstacle is None:
                given_up.pop_all()
            return obstacle or path
    except OSError as error:
        raise files.trouble(error, f"The lock folder {folder} cannot be used") from error


def _write(path: Path, data: bytes, reserve: Path | None) -> None:
    try:
        files.write_atomically(path, data)
    except files.NoSpace as full:
        if reserve is None or not files.write_into(reserve, path, data):
            full.hint = "Delete what is in the trash (`ckptctl prune`), or free some other space there."
            raise


def _release(path: Path, reserve: Path | None) -> None:
    """Remove a lock, or make it the reserve again that it was."""
    if reserve is not None and path.stat().st_size == files.RESERVED_BYTES:
        path.rename(reserve)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _mutex(folder: Path) -> Iterator[None]:
    """A short lock around looking and taking. Its file stays: removing it would let two hold it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / "mutex", flags, files.PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        yield
    finally:
        os.close(descriptor)


def _obstacle(folder: Path, lock: _Lock, is_own: Callable[[Path, _Lock], bool]) -> Locked | None:
    """Who is in the way; the locks of the dead are removed, in the way or not."""
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            other = _read(path)
        except Misshapen as error:
            return _unreadable(path, error)
        if other is None or is_own(path, other):
            continue
        liveness = other.owner.liveness(lock.owner)
        if liveness is Liveness.DEAD:
            path.unlink(missing_ok=True)
        elif shared := [a.resource for a in lock.wants if any(a.conflicts(b) for b in other.wants)]:
            return _locked(path, other, liveness, _in_use(shared[0]))
    return None


def _read(path: Path) -> _Lock | None:
    try:
        raw = codec.loads(path.read_bytes())
        return codec.decode(_Lock, raw)
    except FileNotFoundError:
        return None  # just released
    except OSError as error:
        raise Misshapen(str(error)) from error


def _in_use(resource: str) -> str:
    """What somebody has, and what for, as the beginning of a sentence."""
    kind, _, name = resource.partition(":")
    if kind == _SUPERVISOR:
        return f"The run {name} is looked after by"
    if kind == _RECOMPRESSION:
        return f"The run {name} is made smaller by"
    if kind in {"process", "pid"}:
        return f"The job (process {name.partition(':')[0]}) is in use by"
    if kind == "run":
        return f"The run {name} is in use by"
    return f"{_SUBJECTS.get(kind, kind)} is in use by"


def _locked(path: Path, other: _Lock, liveness: Liveness, in_use: str) -> Locked:
    hint = "Try again when it has ended."
    if liveness is Liveness.UNKNOWN:
        hint = f"If that process is gone for certain, remove {path}; whether it is cannot be seen from here."
    return Locked(
        f"{in_use} {other.owner}.",
        hint=hint,
        details={
            "host": other.owner.host,
            "pid": other.owner.pid,
            "lock": os.fspath(path),
            "out_of_sight": liveness is Liveness.UNKNOWN,
        },
    )


def _unreadable(path: Path, error: Misshapen) -> Locked:
    return Locked(
        f"The lock {path} cannot be read: {error}.",
        hint="If no other ckptctl is at work, remove it.",
        details={"lock": os.fspath(path)},
    )
