"""What a job does with its GPUs that NVIDIA's driver may not be able to save."""

from __future__ import annotations

from typing import Final

from ckptctl.cuda.driver import JOB_FILE
from ckptctl.preflight import gpu_use
from ckptctl.preflight.finding import Finding
from ckptctl.process.libraries import loaded_libraries
from ckptctl.process.member import Process, read_environment
from ckptctl.process.proc import Vanished
from ckptctl.process.tree import Tree
from ckptctl.snapshot.gpu import GpuJob

_SETTINGS: Final = ("NCCL_", JOB_FILE)


def findings(tree: Tree, job: GpuJob | None) -> tuple[Finding, ...]:
    """What the checks of GPU use say; none for a job without."""
    if job is None:
        return ()
    users = tuple(_user(process) for process in tree.processes if process.pid in job.pids)
    return gpu_use.findings(gpu_use.GpuUse(users, job.facts.driver))


def _user(process: Process) -> gpu_use.CudaProcess:
    try:
        environment = read_environment(process.pid)
    except Vanished:
        environment = {}
    return gpu_use.CudaProcess(
        process.pid,
        process.label,
        loaded_libraries(process.pid),
        tuple((name, value) for name, value in environment.items() if name.startswith(_SETTINGS)),
    )
