"""Checks of how a job uses its GPUs: what NVIDIA's driver cannot save, or saves only under conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ckptctl.cuda.driver import JOB_FILE
from ckptctl.cuda.features import DriverVersion, Feature, supports
from ckptctl.preflight.check import Problem
from ckptctl.preflight.described import Question
from ckptctl.preflight.finding import Finding, Level

_GROUP: Final = "gpu"
# Libraries whose optimizers can hold their state in managed memory (cudaMallocManaged).
_MANAGED: Final = ("libbitsandbytes",)
_NCCL: Final = "libnccl"
# Settings of NCCL under which no rank holds memory of another one, as they stand in the environment.
_NETWORK_ONLY: Final = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_NVLS_ENABLE": "0"}
_LEGACY_IPC: Final = {"NCCL_CUMEM_ENABLE": "0", "NCCL_NVLS_ENABLE": "0"}


@dataclass(frozen=True, slots=True)
class CudaProcess:
    """A process that holds CUDA state.

    `libraries` are names of files, `settings` the variables of its environment that steer NCCL and the driver's job
    mode.
    """

    pid: int
    label: str
    libraries: frozenset[str] = frozenset()
    settings: tuple[tuple[str, str], ...] = ()

    def loaded(self, *beginnings: str) -> str | None:
        """A library of the process whose name begins so."""
        return next((name for name in sorted(self.libraries) if name.startswith(beginnings)), None)

    def has(self, wanted: dict[str, str]) -> bool:
        """Whether these settings are all in its environment."""
        return wanted.items() <= dict(self.settings).items()


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The CUDA processes of a job, and the driver's version where it is known."""

    processes: tuple[CudaProcess, ...]
    driver: str | None


def findings(use: GpuUse) -> tuple[Finding, ...]:
    """What every check says of a job that uses GPUs."""
    return tuple(finding for check in CHECKS for finding in check.findings(use))


def _ranks(use: GpuUse) -> Iterator[Problem]:
    """Memory that ranks share is lost or makes the driver hang, and only NCCL's settings at its start avoid it."""
    ranks = [process for process in use.processes if process.loaded(_NCCL)]
    if len(ranks) < 2 or all(process.has(_NETWORK_ONLY) for process in ranks):
        return
    job_mode = use.driver is not None and supports(DriverVersion.parse(use.driver), Feature.IPC)
    if job_mode and all(process.has(_LEGACY_IPC) and JOB_FILE in dict(process.settings) for process in ranks):
        return
    yield Problem(
        Level.WARNING,
        f"{len(ranks)} processes use GPUs and have loaded NCCL ({', '.join(one.label for one in ranks)}): device memory"
        " that they share (NVLS, peer-to-peer) makes the driver hang at the dump or fail at the restore.",
        (("pids", ", ".join(str(one.pid) for one in ranks)), ("driver", use.driver or "unknown")),
    )


def _managed(use: GpuUse) -> Iterator[Problem]:
    for process in use.processes:
        library = process.loaded(*_MANAGED)
        if library:
            yield Problem(
                Level.WARNING,
                f"Process {process.label} has loaded {library}, whose paged optimizers use managed memory: NVIDIA's"
                " driver cannot save that, and the dump would be refused.",
                (("pid", str(process.pid)), ("library", library)),
            )


CHECKS: Final[tuple[Question[GpuUse], ...]] = (
    Question(
        "nccl-ranks",
        _GROUP,
        "Device memory that several processes share is not saved by NVIDIA's driver: a dump hangs, a restore fails.",
        "Start the job so that no rank holds memory of another one: NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1"
        " NCCL_NVLS_ENABLE=0 (slow: collectives go through the network stack). Or let the job end its process groups"
        " before the dump and make them anew after (destroy_process_group at a step's end). Or, with driver 610 and"
        " newer, start it by `cuda-checkpoint --launch-job` with NCCL_CUMEM_ENABLE=0 NCCL_NVLS_ENABLE=0.",
        "No several processes share device memory by NCCL.",
        _ranks,
    ),
    Question(
        "managed-memory",
        _GROUP,
        "NVIDIA's driver cannot save managed memory (cudaMallocManaged): the dump would be refused.",
        "Use an optimizer that is not paged (AdamW8bit instead of PagedAdamW8bit); without one, ignore this.",
        "No library that is known for managed memory is loaded.",
        _managed,
    ),
)
