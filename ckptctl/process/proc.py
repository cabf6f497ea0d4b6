"""Reading /proc where anything may vanish between two reads, or be closed to this user."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

DELETED: Final = " (deleted)"


class Vanished(Exception):
    """The process ended while it was being read; never leaves this package."""


def read(path: str) -> str:
    """The text of a file of /proc; empty where this user may not read it. Raises Vanished."""
    try:
        return Path(path).read_bytes().decode(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Vanished(path) from error
    except OSError:
        return ""


def link(path: str) -> str | None:
    """Where a link of /proc leads; None where this user may not read it. Raises Vanished."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a Path would tidy up names that are no paths, such as /memfd:a//b
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Vanished(path) from error
    except OSError:
        return None


def numbers(folder: str) -> list[int]:
    """The numeric names in a folder of /proc, sorted; empty where this user may not read it. Raises Vanished."""
    try:
        with os.scandir(folder) as entries:
            return sorted(int(entry.name) for entry in entries if entry.name.isdigit())
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Vanished(folder) from error
    except OSError:
        return []


def stat(path: str) -> os.stat_result | None:
    """What a magic link of /proc leads to, also where it is deleted; None where it cannot be looked at."""
    with contextlib.suppress(OSError):
        return Path(path).stat()
    return None


def colon_fields(text: str) -> dict[str, str]:
    """The lines `name:<tab>value` of /proc/PID/status or fdinfo; of repeated names the last counts."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def without_deleted(path: str, inode: int) -> tuple[str, bool]:
    """The path without the kernel's mark of a deleted file, and whether it bore the mark.

    A file may be called so itself: then there is one of that name with this inode.
    """
    if not path.endswith(DELETED):
        return path, False
    status = stat(path)
    if status is not None and status.st_ino == inode:
        return path, False
    return path.removesuffix(DELETED), True


def may_list(folder: str) -> bool:
    """Whether this user may read a folder of /proc. Raises Vanished."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Vanished(folder) from error
    except OSError:
        return False
    return True
