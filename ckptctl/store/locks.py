"""Locks by intent: files in a folder that say who does what to which things.

One mechanism for runs of a store (the folder lies in the store, maybe on a file system shared by machines) and for
process trees (a folder of this host). A lock names several resources at once, so that trees that overlap are found.
A lock whose owner is dead is removed by whoever meets it; one of another host never is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
from ckptctl.store.owner import Liveness, Owner

_VERSION: Final = 1
_POLL_S: Final = 0.1
# What flock(2) answers on file systems that cannot: Lustre without its option, some FUSE ones.
_NO_FLOCK: Final = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class Locked(CkptctlError):
    """Somebody else is at work on the same thing."""

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


def run_wants(run: str, intent: Intent) -> tuple[Want, ...]:
    """To work in one run: whoever wants the whole store exclusively must wait, and the other way round."""
    return (Want("store", Intent.READ if intent is Intent.READ else Intent.APPEND), Want(f"run:{run}", intent))


def store_wants(intent: Intent) -> tuple[Want, ...]:
    """To work on the store as a whole."""
    return (Want("store", intent),)


def tree_wants(tree: Sequence[ProcessId]) -> tuple[Want, ...]:
    """To dump or end these processes."""
    return tuple(Want(f"process:{process.pid}:{process.start_ticks}", Intent.EXCLUSIVE) for process in tree)


class LockFolder:
    """The locks in one folder, seen by one owner."""

    def __init__(self, folder: Path, owner: Owner) -> None:
        self._folder = folder
        self._owner = owner

    @contextmanager
    def hold(self, wants: Sequence[Want], *, wait_s: float, interrupt: Interrupt) -> Iterator[None]:
        """Hold a lock on all of `wants` in this block; wait up to `wait_s` seconds for whoever is in the way.

        Not reentrant: a second one of the same process conflicts like any other.
        Raises Locked, files.FileTrouble, files.NoSpace and what `interrupt` raises.
        """
        path = self._acquire(_Lock(self._owner, tuple(wants)), wait_s, interrupt)
        try:
            yield
        finally:
            # Left behind it would go stale with this process; that must not hide what the block raised.
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _acquire(self, lock: _Lock, wait_s: float, interrupt: Interrupt) -> Path:
        files.make_private_folder(self._folder)
        deadline = time.monotonic() + wait_s
        while True:
            interrupt.check()
            taken = self._try(lock)
            if isinstance(taken, Path):
                return taken
            if time.monotonic() >= deadline:
                raise taken
            time.sleep(_POLL_S)

    def _try(self, lock: _Lock) -> Path | Locked:
        """Take the lock, or return why it cannot be had.

        The file is written before the others are looked at: where flock does not work, two who come at the same time
        then both give way, and never both go on.
        """
        path = self._folder / f"{self._owner.pid}-{secrets.token_hex(8)}.json"
        with self._mutex():
            files.write_atomically(path, codec.dumps(lock, version=_VERSION))
            try:
                obstacle = self._obstacle(path, lock)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            if obstacle is None:
                return path
            path.unlink(missing_ok=True)
            return obstacle

    @contextmanager
    def _mutex(self) -> Iterator[None]:
        """A short lock around looking and taking. Its file stays: removing it would let two hold it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / "mutex", flags, files.PRIVATE_FILE)
        except OSError as error:
            raise files.trouble(error, f"The lock folder {self._folder} cannot be used") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise files.trouble(error, f"{self._folder / 'mutex'} cannot be locked") from error
            yield
        finally:
            os.close(descriptor)

    def _obstacle(self, own: Path, lock: _Lock) -> Locked | None:
        for path in sorted(self._folder.glob("[!.]*.json")):
            if path == own:
                continue
            try:
                other = _read(path)
            except Misshapen as error:
                return _unreadable(path, error)
            if other is None or not any(a.conflicts(b) for a in lock.wants for b in other.wants):
                continue
            liveness = other.owner.liveness(self._owner)
            if liveness is not Liveness.DEAD:
                return _locked(path, other, liveness)
            path.unlink(missing_ok=True)
        return None


def _read(path: Path) -> _Lock | None:
    try:
        raw = codec.loads(path.read_bytes())
        return codec.decode(_Lock, raw)
    except FileNotFoundError:
        return None  # just released
    except OSError as error:
        raise Misshapen(str(error)) from error


def _locked(path: Path, other: _Lock, liveness: Liveness) -> Locked:
    hint = "Try again when it has ended."
    if liveness is Liveness.UNKNOWN:
        hint = f"If that process is gone for certain, remove {path}; whether it is cannot be seen from here."
    return Locked(
        f"In use by {other.owner}.",
        hint=hint,
        details={"host": other.owner.host, "pid": other.owner.pid, "lock": os.fspath(path)},
    )


def _unreadable(path: Path, error: Misshapen) -> Locked:
    return Locked(
        f"The lock {path} cannot be read: {error}.",
        hint="If no other ckptctl is at work, remove it.",
        details={"lock": os.fspath(path)},
    )
