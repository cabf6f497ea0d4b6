"""Checks of the GPUs: their modes, who shares them, and whether what is on them fits into the host's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ckptctl.cuda.features import DriverVersion, Feature, supports
from ckptctl.host.gpu import ComputeMode, Gpu
from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Problem
from ckptctl.preflight.cuda import GROUP, of_cuda
from ckptctl.preflight.cuda_facts import CudaFacts
from ckptctl.preflight.machine_check import MachineCheck, about, about_both, error, ok, skipped, warning
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.unknown import Unknown
from ckptctl.units import format_size


def _gpus(facts: Facts) -> Sequence[Gpu] | Unknown:
    cuda = of_cuda(facts)
    if isinstance(cuda, Unknown):
        return cuda
    return cuda.nvml.gpus or Unknown("No GPU could be asked.")


def _memory(gpus: Sequence[Gpu]) -> Iterator[Problem]:
    for gpu in gpus:
        free, total = format_size(gpu.free_bytes), format_size(gpu.total_bytes)
        pids = " ".join(str(process.pid) for process in gpu.processes)
        yield ok(
            f"GPU {gpu.index} ({gpu.model}) has {free} of {total} free.",
            index=gpu.index,
            uuid=gpu.uuid,
            free_bytes=gpu.free_bytes,
            total_bytes=gpu.total_bytes,
            pids=pids or None,
        )


def _persistence(gpus: Sequence[Gpu]) -> Iterator[Problem]:
    off = [gpu for gpu in gpus if gpu.persistence is False]
    if off:
        yield warning(f"Persistence mode is off on {_names(off)}.", gpus=_indexes(off))
    else:
        yield ok("Persistence mode is on.")


def _mig(gpus: Sequence[Gpu]) -> Iterator[Problem]:
    divided = [gpu for gpu in gpus if gpu.mig]
    if not divided:
        yield ok("No GPU is divided (MIG).")
        return
    summary = f"{_names(divided)} {'is' if len(divided) == 1 else 'are'} divided (MIG), which no driver can save."
    say = error if len(divided) == len(gpus) else warning
    yield say(summary, gpus=_indexes(divided))


def _mps(facts: CudaFacts) -> Iterator[Problem]:
    if facts.mps:
        pids = ", ".join(map(str, facts.mps))
        yield warning(f"The Multi-Process Service (MPS) runs (pid {pids}): its clients cannot be saved.", pids=pids)
    else:
        yield ok("No Multi-Process Service (MPS) runs.")


def _compute_mode(gpus: Sequence[Gpu]) -> Iterator[Problem]:
    closed = [gpu for gpu in gpus if gpu.compute_mode is ComputeMode.PROHIBITED]
    alone = [gpu for gpu in gpus if gpu.compute_mode in (ComputeMode.EXCLUSIVE_PROCESS, ComputeMode.EXCLUSIVE_THREAD)]
    if closed:
        say = error if len(closed) == len(gpus) else warning
        yield say(f"The compute mode of {_names(closed)} is PROHIBITED: nothing can run there.", gpus=_indexes(closed))
    if alone:
        yield warning(
            f"The compute mode of {_names(alone)} is exclusive: whoever drives the restore may be refused.",
            gpus=_indexes(alone),
        )
    if not closed and not alone:
        yield ok("Every GPU may be shared (compute mode DEFAULT).")


def _host_memory(facts: CudaFacts, machine: Machine) -> Iterator[Problem]:
    if not facts.nvml.gpus:
        yield skipped("No GPU could be asked.")
        return
    used = sum(gpu.used_bytes for gpu in facts.nvml.gpus)
    available = machine.memory_available_bytes
    data = {"gpu_used_bytes": used, "available_bytes": available}
    said = f"{format_size(used)} of GPU memory are in use, {format_size(available)} of host memory are available."
    driver = facts.module or facts.nvml.driver
    # The driver's way without a copy exists, but it is not taken: that needs more of the job.
    newer = driver is not None and supports(DriverVersion.parse(driver), Feature.CUSTOM_STORAGE)
    yield ok(said, **data) if used <= available else warning(said, custom_storage=newer, **data)


def _names(gpus: Sequence[Gpu]) -> str:
    if len(gpus) == 1:
        return f"GPU {gpus[0].index}"
    return f"GPUs {', '.join(str(gpu.index) for gpu in gpus)}"


def _indexes(gpus: Sequence[Gpu]) -> str:
    return " ".join(str(gpu.index) for gpu in gpus)


CHECKS: Final = (
    MachineCheck(
        "gpu-free-memory",
        GROUP,
        "A restore needs as much free memory on each GPU as the job had there.",
        "End what else is on the GPU.",
        about(_gpus, _memory),
    ),
    MachineCheck(
        "gpu-persistence",
        GROUP,
        "Without it the driver is unloaded from a GPU that nobody uses, as in the middle of a checkpoint.",
        "Run nvidia-smi -pm 1, or start nvidia-persistenced.",
        about(_gpus, _persistence),
    ),
    MachineCheck(
        "gpu-mig",
        GROUP,
        "The checkpoint of a process on a slice of a GPU fails as out of memory.",
        "Switch it off where jobs shall be saved: nvidia-smi -i N -mig 0",
        about(_gpus, _mig),
    ),
    MachineCheck(
        "gpu-mps",
        GROUP,
        "The GPU memory of a client of the Multi-Process Service belongs to its server.",
        "End it before the job is started: echo quit | nvidia-cuda-mps-control",
        about(of_cuda, _mps),
    ),
    MachineCheck(
        "gpu-compute-mode",
        GROUP,
        "A restore opens the GPU besides the job.",
        "Run nvidia-smi -c DEFAULT.",
        about(_gpus, _compute_mode),
    ),
    MachineCheck(
        "gpu-host-memory",
        GROUP,
        "A checkpoint copies the memory of the GPUs into that of the job's processes.",
        "End what else uses memory, or let the job free its cache first (torch.cuda.empty_cache).",
        about_both(of_cuda, lambda facts: facts.machine, _host_memory),
    ),
)
