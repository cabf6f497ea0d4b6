"""Every check of this layer in words, for the page of the manual that lists them."""

from __future__ import annotations

from typing import Final

from ckptctl.preflight import gpu_use, ready, restore, tree
from ckptctl.preflight.described import Described

# Those of `ckptctl.preflight.gpu`, whose sentences all hold values of the snapshot and of this machine.
GPU_GATE: Final = (
    Described(
        "gpu-driver",
        "gpu",
        "GPU memory is read back by a driver that is at least as new as that of the dump.",
        "Install that driver or a newer one.",
    ),
    Described(
        "gpu-map",
        "gpu",
        "Every GPU of the dump needs one of this machine in its place.",
        "Restore onto the GPUs of the dump, or name others with --gpu-map.",
    ),
    Described(
        "gpu-memory",
        "gpu",
        "A process that runs out of GPU memory while it is restored can never be restored again.",
        "End what uses the GPU, or choose another one with --gpu-map.",
    ),
)


def describe_checks() -> tuple[Described, ...]:
    """Those of a machine, of a process tree, of its use of GPUs, and of a snapshot before its restore."""
    processes = (Described(one.name, one.group, one.protects, one.remedy) for one in tree.CHECKS)
    return (*ready.CHECKS, *processes, *gpu_use.CHECKS, *restore.CHECKS, *GPU_GATE)
