"""Files that grew since the dump: put back to their size, with what was behind it kept, and the reverse.

CRIU refuses a file whose size is another than at the dump (unless it is appended to), and a log that kept its later
lines would hold them twice once the job has done those steps again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store.journal import MovedFile

_PIECE_BYTES: Final = 1 << 20


class FileChanged(CkptctlError):
    """A file was changed by somebody else while it was to be put back to its size."""

    code = "E_FILE_CHANGED"
    exit_status = ExitStatus.RESTORE_FAILED


@dataclass(frozen=True, slots=True)
class PutBack:
    """What `put_back` did: the files that are as before, and those that somebody wrote to meanwhile."""

    restored: tuple[MovedFile, ...]
    left: tuple[MovedFile, ...]


def cut(moved: MovedFile) -> None:
    """Copy what is behind the file's former size to `moved.tail`, durably, then cut it off.

    Raises FileChanged where the size is another than expected, FileTrouble, NoSpace; nothing is then lost.
    """
    try:
        descriptor = os.open(moved.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "r+b", buffering=0) as file:
            if os.fstat(descriptor).st_size != moved.size_before_bytes:
                raise FileChanged(
                    f"{moved.path} is being written by somebody.", hint="See who has it open: `fuser -v` with its path."
                )
            _copy_tail(descriptor, moved)
            file.truncate(moved.size_after_bytes)
            os.fsync(descriptor)
    except OSError as error:
        raise files.trouble(error, f"{moved.path} cannot be put back to its size at the dump") from error


def put_back(moved: Iterable[MovedFile]) -> PutBack:
    """Give the files their tails again, where nobody has written to them since. Safe to call again after a crash.

    One that fails does not keep the others from it: the first failure is raised at the end (FileTrouble, NoSpace).
    """
    restored: list[MovedFile] = []
    left: list[MovedFile] = []
    failures: list[CkptctlError] = []
    for item in moved:
        try:
            (restored if _put_back_one(item) else left).append(item)
        except CkptctlError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return PutBack(tuple(restored), tuple(left))


def _copy_tail(descriptor: int, moved: MovedFile) -> None:
    files.make_private_folder(moved.tail.parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(moved.tail, flags, files.PRIVATE_FILE), "wb") as tail:
        offset = moved.size_after_bytes
        while piece := os.pread(descriptor, min(_PIECE_BYTES, moved.size_before_bytes - offset), offset):
            tail.write(piece)
            offset += len(piece)
        tail.flush()
        os.fsync(tail.fileno())
    files.fsync_folder(moved.tail.parent)


def _put_back_one(moved: MovedFile) -> bool:
    try:
        size = moved.path.stat().st_size
        if size == moved.size_before_bytes or not moved.tail.exists():
            moved.tail.unlink(missing_ok=True)
            return True
        if not _is_beginning(moved, size):
            return False
        with open(moved.tail, "rb") as tail, open(moved.path, "r+b") as file:
            file.truncate(moved.size_after_bytes)
            file.seek(moved.size_after_bytes)
            while piece := tail.read(_PIECE_BYTES):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        moved.tail.unlink()
    except OSError as error:
        raise files.trouble(error, f"{moved.path} cannot be given its tail {moved.tail} again") from error
    return True


def _is_beginning(moved: MovedFile, size: int) -> bool:
    """Whether the file is as we cut it, or holds only the beginning of its tail (an earlier try was killed)."""
    if not moved.size_after_bytes <= size < moved.size_before_bytes:
        return False
    with open(moved.path, "rb") as file, open(moved.tail, "rb") as tail:
        file.seek(moved.size_after_bytes)
        while piece := file.read(_PIECE_BYTES):
            if tail.read(len(piece)) != piece:
                return False
    return True
