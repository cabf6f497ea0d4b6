"""The file system that a folder lies on, and the space there; run as a child where it may be on a network.

A server that is gone makes whoever asks wait where no signal reaches: only a child can be left behind.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo: where, which kind (`ext4`, `nfs4`), and the options of both levels."""

    point: str
    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What a folder offers; `path`, without links, is the folder itself or the nearest one above it that exists."""

    path: str
    free_bytes: int
    total_bytes: int
    writable: bool


def mount_of(path: Path, mountinfo: str) -> Mount | None:
    """The mount that holds a path without links, from the text of proc_pid_mountinfo(5). Touches no file system."""
    best = None
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(), after.split(" ", 2)
        if not separator or len(fields) < 6 or len(rest) < 3:
            continue
        point = Path(_plain(fields[4]))
        # A later mount on the same folder covers the earlier one.
        if path.is_relative_to(point) and (best is None or len(str(point)) >= len(best.point)):
            best = Mount(str(point), rest[0], tuple(dict.fromkeys((fields[5] + "," + rest[2]).split(","))))
    return best


def read_place(path: Path) -> Place:
    """Ask the file system. May wait for ever; raises OSError."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    info = os.statvfs(folder)
    writable = os.access(folder, os.W_OK | os.X_OK) and not info.f_flag & os.ST_RDONLY
    return Place(str(folder.resolve()), info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize, writable)


def place_from(text: str) -> Place:
    """The place that the child has printed."""
    raw = json.loads(text.splitlines()[-1])
    return Place(raw["path"], raw["free_bytes"], raw["total_bytes"], raw["writable"])


def _plain(text: str) -> str:
    """Blanks and the like are written as octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


if __name__ == "__main__":
    found = read_place(Path(sys.argv[1]))
    fields = {"path": found.path, "free_bytes": found.free_bytes, "total_bytes": found.total_bytes}
    sys.stdout.write(json.dumps({**fields, "writable": found.writable}) + "\n")
