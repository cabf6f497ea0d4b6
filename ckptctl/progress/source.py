"""What a source of progress is, and how the files behind it are read: bounded, never blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ckptctl.store.manifest import Progress

_PIECE_BYTES: Final = 1 << 20


class Source(Protocol):
    """One place that tells how far a training is."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

    def read(self) -> Progress:
        """What it tells now; an empty Progress where it tells nothing yet, or is not there.

        Cheap where nothing has changed since the last time. Raises Unreadable, and nothing else, whatever is found
        there: the job writes these files.
        """
        ...


class Unreadable(Exception):
    """A source is there but cannot be understood; the message says why, as a sentence's end."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells two states of a file apart without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int


def version(path: Path) -> Version | None:
    """The version of the regular file at `path`; None where there is none. Raises Unreadable."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Unreadable(f"it cannot be looked at: {_why(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("it is no regular file")
    return Version(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_whole(path: Path, most_bytes: int) -> bytes:
    """The contents of the file; empty where it has just gone. Raises Unreadable, also for more than `most_bytes`."""
    data = read_part(path, 0, most_bytes + 1)
    if len(data) > most_bytes:
        raise Unreadable(f"it is larger than {most_bytes >> 20} MiB")
    return data


def read_part(path: Path, offset: int, count: int) -> bytes:
    """Up to `count` bytes from `offset`; fewer at the end of the file, none where it has just gone.

    Raises Unreadable.
    """
    try:
        # Not blocking: between a look and this, a file may have become a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Unreadable(f"it cannot be opened: {_why(error)}") from error
    try:
        return b"".join(_pieces(descriptor, offset, count))
    except OSError as error:
        raise Unreadable(f"it cannot be read: {_why(error)}") from error
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, offset: int, count: int) -> Iterator[bytes]:
    while count > 0 and (piece := os.pread(descriptor, min(count, _PIECE_BYTES), offset)):
        yield piece
        offset += len(piece)
        count -= len(piece)


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def newest(folder: Path, *patterns: str) -> tuple[Path, Version] | None:
    """The regular file written last among those that `patterns` match below `folder`. Raises Unreadable."""
    try:
        paths = [path for pattern in patterns for path in folder.glob(pattern)]
    except (OSError, ValueError) as error:
        raise Unreadable(f"{folder} cannot be looked through: {_why(error)}") from error
    found = [(path, now) for path in paths if (now := _version_or_none(path)) is not None]
    return max(found, key=lambda pair: (pair[1].modified_ns, len(str(pair[0])), pair[0]), default=None)


def _version_or_none(path: Path) -> Version | None:
    try:
        return version(path)
    except Unreadable:
        return None
