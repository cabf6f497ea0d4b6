"""Would the GPU memory of a snapshot fit here? Asked before CRIU begins: a process that runs out of device memory while
it is restored can never be restored again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ckptctl.cuda.driver import GpuPair
from ckptctl.cuda.features import DriverVersion, Feature, supports
from ckptctl.cuda.gpu_map import GpuMapWrong, KnownGpu, Wish, complete_map
from ckptctl.host.gpu import Gpu, GpuFacts
from ckptctl.preflight.finding import Finding, Level
from ckptctl.store import manifest
from ckptctl.units import format_size

_GROUP: Final = "gpu"


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """Where device memory goes: `pairs` is the complete map, empty where every GPU stays itself."""

    pairs: tuple[GpuPair, ...]
    findings: tuple[Finding, ...]

    def place(self, uuid: str) -> str:
        """The GPU that takes the place of this one."""
        return next((pair.new_uuid for pair in self.pairs if pair.old_uuid == uuid), uuid)


def plan(saved: manifest.Gpu, facts: GpuFacts, wishes: Sequence[Wish]) -> GpuPlan:
    """Place the GPUs of the dump on those of this machine and see what stands in the way."""
    if facts.driver is None:
        return GpuPlan((), (_error("gpu-driver", f"The job needs a GPU; {facts.reason or 'there is none here'}"),))
    old = tuple(KnownGpu(one.index, one.uuid, one.model) for one in saved.gpus)
    new = tuple(KnownGpu(one.index, one.uuid, one.model) for one in facts.gpus)
    try:
        pairs = complete_map(old, new, wishes)
    except GpuMapWrong as error:
        return GpuPlan((), (Finding("gpu-map", _GROUP, Level.ERROR, error.message, error.hint),))
    placed = GpuPlan(pairs, ())
    return GpuPlan(pairs, (*_driver(saved, facts.driver, pairs), *_memory(saved, facts.gpus, placed)))


def _driver(saved: manifest.Gpu, driver: str, pairs: tuple[GpuPair, ...]) -> Iterator[Finding]:
    here = DriverVersion.parse(driver)
    if saved.driver is not None and here < DriverVersion.parse(saved.driver):
        yield _error(
            "gpu-driver",
            f"The dump was made with NVIDIA's driver {saved.driver}; here is the older {driver}.",
            f"Install driver {saved.driver} or newer.",
        )
    if pairs and not supports(here, Feature.GPU_MAP):
        yield _error(
            "gpu-map",
            f"NVIDIA's driver {driver} can restore device memory only onto the GPUs of the dump, each onto itself.",
            "Install driver 580 or newer, or restore onto the GPUs of the dump.",
        )


def _memory(saved: manifest.Gpu, gpus: Sequence[Gpu], placed: GpuPlan) -> Iterator[Finding]:
    wanted: defaultdict[str, int] = defaultdict(int)
    for one in saved.memory:
        wanted[placed.place(one.uuid)] += one.size_bytes
    for gpu in gpus:
        if wanted[gpu.uuid] > gpu.free_bytes:
            users = ", ".join(str(process.pid) for process in gpu.processes) or "unknown"
            yield _error(
                "gpu-memory",
                f"GPU {gpu.index} has {format_size(gpu.free_bytes)} free; the job needs "
                f"{format_size(wanted[gpu.uuid])} of it (in use by processes: {users}).",
                "End what uses the GPU, or choose another one with --gpu-map.",
            )


def _error(check: str, summary: str, remedy: str = "Restore on a machine with NVIDIA's driver and GPUs.") -> Finding:
    return Finding(check, _GROUP, Level.ERROR, summary, remedy)
