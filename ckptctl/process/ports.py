"""The TCP ports that somebody listens on in our network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"


def listening_ports() -> frozenset[int]:
    """The numbers, from /proc/net/tcp and tcp6 (proc_pid_net(5)); empty where the kernel has no such files."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state = line.split()[:4]
            if state == _LISTEN:
                found.add(int(local.rpartition(":")[2], 16))
    return frozenset(found)
