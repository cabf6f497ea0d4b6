"""The capabilities that a program's file gives to whoever runs it (capabilities(7), "File capabilities")."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from ckptctl.host.machine import capability_names

_ATTRIBUTE: Final = "security.capability"
_ELF: Final = b"\x7fELF"
# struct vfs_cap_data of linux/capability.h from its second revision on: a word of flags, two pairs of masks.
_LAYOUT: Final = struct.Struct("<5I")


def file_capabilities(path: Path) -> frozenset[str]:
    """By name; empty for a script, on a file system without set-user-ID, and where this process may gain nothing."""
    try:
        with path.open("rb") as file:
            if file.read(len(_ELF)) != _ELF or os.fstatvfs(file.fileno()).f_flag & os.ST_NOSUID:
                return frozenset()
            attribute = os.getxattr(file.fileno(), _ATTRIBUTE)
    except OSError:
        return frozenset()
    if len(attribute) < _LAYOUT.size or _may_gain_nothing():
        return frozenset()
    _, low, _, high, _ = _LAYOUT.unpack_from(attribute)
    return capability_names(high << 32 | low)


def _may_gain_nothing() -> bool:
    """Whether PR_SET_NO_NEW_PRIVS is on us, under which the kernel disregards the capabilities of files."""
    return "NoNewPrivs:\t1" in Path("/proc/self/status").read_text()
