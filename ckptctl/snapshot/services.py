"""What a dump, a restore and a recovery need from outside: programs, folders, clocks, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptctl.criu.program import Criu
    from ckptctl.cuda.choice import Choice
    from ckptctl.events import Reporter
    from ckptctl.host.gpu import GpuFacts
    from ckptctl.host.machine import Machine
    from ckptctl.interrupt import Interrupt
    from ckptctl.store.owner import Owner


@dataclass(frozen=True, slots=True)
class HostState:
    """The folder of this host: the journal of actions on live jobs, locks on their processes, logs of failed dumps.

    And who looks after which run here, for a drain of the machine.
    """

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    @property
    def failures(self) -> Path:
        return self.path / "failures"

    @property
    def duties(self) -> Path:
        """Each `run` and `watch` that is under way."""
        return self.path / "duties"

    @property
    def drained(self) -> Path:
        """While this file exists, no run is started here."""
        return self.path / "drained.json"

    @property
    def to_bring_back(self) -> Path:
        """The runs that a drain has stopped."""
        return self.path / "to-bring-back"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that is not the request itself. What costs time is called when it is first needed."""

    find_criu: Callable[[], Criu]
    open_cuda: Callable[[], Choice]
    read_gpu_facts: Callable[[], GpuFacts]
    machine: Machine
    host_state: HostState
    owner: Owner
    reporter: Reporter
    interrupt: Interrupt
    now: Callable[[], datetime]
    clock: Callable[[], float]
    random_hex: Callable[[], str]
    lock_wait_s: float
