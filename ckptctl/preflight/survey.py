"""The facts about this machine, gathered once and side by side. A fact that cannot be had says why; nothing waits long.

One that hangs costs the limit once, for all are asked at the same time (`asked`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.criu.program import with_own_capabilities
from ckptctl.host.confinement import Confinement, read_confinement
from ckptctl.host.kernel import Kernel, read_kernel
from ckptctl.host.limits import Limits, read_limits
from ckptctl.host.machine import Machine, read_machine
from ckptctl.host.orphans import count_unreaped
from ckptctl.host.place import Mount, Place, mount_of, place_from, read_place
from ckptctl.preflight.asked import Asked
from ckptctl.preflight.cluster_facts import SlurmFacts, read_slurm
from ckptctl.preflight.criu_facts import CriuFacts, read_criu
from ckptctl.preflight.cuda_facts import CudaFacts, read_cuda
from ckptctl.preflight.unknown import Unknown

_MARGIN_S: Final = 0.2


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
    criu = Asked("criu", lambda: read_criu(environment, limit_s))
    cuda = Asked("the GPUs", lambda: read_cuda(environment, limit_s))
    place = Asked(f"the file system of {inquiry.store}", lambda: _place(inquiry.store, limit_s))
    slurm = Asked("Slurm", lambda: read_slurm(environment, limit_s))
    kernel = Asked("the kernel", read_kernel)
    confinement = Asked("the security modules", read_confinement)
    limits = Asked("the limits", read_limits)
    machine = Asked("the machine", lambda: _machine(environment))
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


def _machine(environment: Mapping[str, str]) -> Machine:
    """A process that ends at this moment is a zombie too: only one that stays so is left by process 1."""
    machine = with_own_capabilities(read_machine(), environment)
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
