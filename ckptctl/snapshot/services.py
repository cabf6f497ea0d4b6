"""What a dump, a restore and a recovery need from outside: programs, folders, clocks, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ckptctl.criu.program import Criu
from ckptctl.events import Reporter
from ckptctl.host.machine import Machine
from ckptctl.interrupt import Interrupt
from ckptctl.store.owner import Owner


@dataclass(frozen=True, slots=True)
class HostState:
    """The folder of this host that holds the journal of actions on live jobs and the locks on their processes."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def locks(self) -> Path:
        return self.path / "locks"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is not the request itself. `find_criu` is called when criu is first needed."""

    find_criu: Callable[[], Criu]
    machine: Machine
    host_state: HostState
    owner: Owner
    reporter: Reporter
    interrupt: Interrupt
    now: Callable[[], datetime]
    clock: Callable[[], float]
    random_hex: Callable[[], str]
    lock_wait_s: float
