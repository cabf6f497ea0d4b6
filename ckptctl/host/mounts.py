"""Which kind of file system a device number stands for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# File systems whose files live in memory: a reboot, and a restore elsewhere, find nothing of them.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def devices_in_memory() -> frozenset[int]:
    """The device numbers (st_dev) of every mounted file system that lives in memory (proc_pid_mountinfo(5))."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in IN_MEMORY:
            major, minor = before.split()[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
