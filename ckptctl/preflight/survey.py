"""The facts about this machine, gathered once and side by side. A fact that cannot be had says why; nothing waits long.

Each is asked in a thread that nobody waits for at the end: one that hangs (a dead file server, a broken GPU driver)
costs the limit once, and its place says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Generic, TypeVar

from ckptctl import command
from ckptctl.errors import CkptctlError
from ckptctl.host.confinement import Confinement, read_confinement
from ckptctl.host.kernel import Kernel, read_kernel
from ckptctl.host.limits import Limits, read_limits
from ckptctl.host.machine import Machine, read_machine
from ckptctl.host.orphans import count_unreaped
from ckptctl.host.place import Mount, Place, mount_of, place_from, read_place
from ckptctl.preflight.cluster_facts import SlurmFacts, read_slurm
from ckptctl.preflight.criu_facts import CriuFacts, read_criu
from ckptctl.preflight.cuda_facts import CudaFacts, read_cuda
from ckptctl.preflight.unknown import Unknown

_MARGIN_S: Final = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What to ask about. `environment` is that of ckptctl, with its setting for criu; `now` and `newest_snapshot` are
    aware of their time zone, the latter None where the store has no snapshot. `limit_s` is the most that all may take.
    """

    store: Path
    environment: Mapping[str, str]
    now: datetime
    newest_snapshot: datetime | None = None
    limit_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Clock:
    """The time here, and that of the newest snapshot of the store, None without one."""

    now: datetime
    newest_snapshot: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the checks of a machine look at.

    `mount` and `place` are those of the store. `slurm` is None where there is no Slurm.
    """

    clock: Clock
    machine: Machine | Unknown
    kernel: Kernel | Unknown
    confinement: Confinement | Unknown
    limits: Limits | Unknown
    mount: Mount | Unknown
    place: Place | Unknown
    criu: CriuFacts | Unknown
    cuda: CudaFacts | Unknown
    slurm: SlurmFacts | Unknown | None


def gather(inquiry: Inquiry) -> Facts:
    """Gather all facts, within `limit_s` and a little more. Changes nothing and raises nothing."""
    environment, limit_s = inquiry.environment, inquiry.limit_s
    criu = _Asked("criu", lambda: read_criu(environment, limit_s))
    cuda = _Asked("the GPUs", lambda: read_cuda(environment, limit_s))
    place = _Asked(f"the file system of {inquiry.store}", lambda: _place(inquiry.store, limit_s))
    slurm = _Asked("Slurm", lambda: read_slurm(environment, limit_s))
    kernel = _Asked("the kernel", read_kernel)
    confinement = _Asked("the security modules", read_confinement)
    limits = _Asked("the limits", read_limits)
    machine = _Asked("the machine", _machine)
    deadline = time.monotonic() + limit_s + _MARGIN_S
    where = place.answer(deadline)
    return Facts(
        clock=Clock(inquiry.now, inquiry.newest_snapshot),
        machine=machine.answer(deadline),
        kernel=kernel.answer(deadline),
        confinement=confinement.answer(deadline),
        limits=limits.answer(deadline),
        mount=_mount(inquiry.store, where),
        place=where,
        criu=criu.answer(deadline),
        cuda=cuda.answer(deadline),
        slurm=slurm.answer(deadline),
    )


class _Asked(Generic[T]):
    """A question that is being answered in a thread of its own."""

    def __init__(self, about: str, ask: Callable[[], T]) -> None:
        self._about = about
        self._ask = ask
        self._answer: list[T | Unknown] = []
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"ask about {about}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer.append(self._ask())
        except Exception as error:  # a fact that cannot be had is no failure of the check
            said = error.message if isinstance(error, CkptctlError) else f"{type(error).__name__}: {error}"
            self._answer.append(Unknown(f"Nothing could be learned about {self._about}: {said}"))

    def answer(self, deadline: float) -> T | Unknown:
        """What was answered by then (time.monotonic)."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._answer:
            return self._answer[0]
        return Unknown(f"Nothing was heard about {self._about} within {time.monotonic() - self._began:.0f} s.")


def _machine() -> Machine:
    """A process that ends at this moment is a zombie too: only one that stays so is left by process 1."""
    machine = read_machine()
    if not machine.first_process.zombies:
        return machine
    return replace(machine, first_process=replace(machine.first_process, zombies=count_unreaped()))


def _place(store: Path, limit_s: float) -> Place:
    try:
        said = command.run(command.python_module("ckptctl.host.place", str(store)), timeout_s=limit_s)
    except command.CommandMissing:
        # This user may not start our Python anew: then it is this thread that would hang.
        return read_place(store)
    return place_from(said.stdout)


def _mount(store: Path, place: Place | Unknown) -> Mount | Unknown:
    """Where the file system does not answer, links in the path stay as they are: nothing here may touch it."""
    folder = Path(os.path.normpath(store)) if isinstance(place, Unknown) else Path(place.path)
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError as error:
        return Unknown(f"The mounts cannot be read: {error.strerror}.")
    return mount_of(folder, mountinfo) or Unknown(f"No mount holds {store}.")
