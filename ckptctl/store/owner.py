"""Who holds a lock or writes a journal: one process, on one boot of one machine; and whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

from ckptctl.process.identity import ProcessId, identify, is_alive
from ckptctl.store.codec import Count, Pid


class Liveness(Enum):
    """What can be said of an owner from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # on another machine, or in a PID namespace that is not ours


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of ckptctl."""

    host: Annotated[str, "name of the machine"]
    # Names are not unique (containers, `localhost`): a wrong "other boot of this host" would steal a lock.
    machine_id: Annotated[str, "/etc/machine-id, empty where there is none"]
    boot_id: Annotated[str, "the kernel's random id of the boot"]
    pid_namespace: Annotated[str, "PID namespace in which `pid` counts"]
    pid: Annotated[Pid, "the process"]
    start_ticks: Annotated[Count, "when it started, in clock ticks after boot"]
    command: Annotated[str, "what it was asked to do"]
    since: Annotated[datetime, "since when"]

    def liveness(self, here: Owner) -> Liveness:
        """Whether this process still lives, as seen by the process `here`."""
        if (self.host, self.machine_id) != (here.host, here.machine_id):
            return Liveness.UNKNOWN
        if self.boot_id != here.boot_id:
            return Liveness.DEAD
        if self.pid_namespace != here.pid_namespace:
            return Liveness.UNKNOWN
        return Liveness.ALIVE if is_alive(ProcessId(self.pid, self.start_ticks)) else Liveness.DEAD

    def is_same(self, other: Owner) -> bool:
        """Whether both are one process."""
        mine, theirs = ((one.boot_id, one.pid_namespace, one.pid, one.start_ticks) for one in (self, other))
        return mine == theirs

    def __str__(self) -> str:
        since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} on {self.host} (`{self.command}`, since {since})"


def this_owner(command: str, since: datetime) -> Owner:
    """The process that calls, with the command line `command`, at the time `since` (UTC)."""
    return Owner(
        host=socket.gethostname(),
        machine_id=_first_line(Path("/etc/machine-id")),
        boot_id=_first_line(Path("/proc/sys/kernel/random/boot_id")),
        pid_namespace=os.fspath(Path("/proc/self/ns/pid").readlink()),
        pid=os.getpid(),
        start_ticks=identify(os.getpid()).start_ticks,
        command=command,
        since=since,
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
