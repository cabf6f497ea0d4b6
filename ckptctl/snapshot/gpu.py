"""The GPU memory of a job: found, moved into host memory before CRIU looks, and moved back when the job is to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ckptctl.cuda.choice import Choice
from ckptctl.cuda.driver import CheckpointDriver, CudaState
from ckptctl.cuda.features import DriverVersion, Feature, supports
from ckptctl.cuda.operations import (
    Timing,
    bring_to_running,
    checkpoint_all,
    find_cuda_pids,
    lock_all,
    restore_all,
    unlock_all,
)
from ckptctl.cuda.results import CudaProcessGone, NotCudaProcess
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.gpu import Gpu, GpuFacts
from ckptctl.preflight.finding import Finding, Level, Refused
from ckptctl.process.files import FileKind
from ckptctl.process.member import read_process
from ckptctl.process.tree import Tree
from ckptctl.units import format_size

DEVICE_CHECK: Final = "gpu-device"
_DEVICE: Final = "/dev/nvidia"
_LIBRARY: Final = "libcuda.so"
_JOB_FILE: Final = "CUDA_CHECKPOINT_JOB_FILE"
_HOST_MARGIN: Final = 1.05
# CRIU leaves out pages of zeros that were never written to; everything else that is resident must be in the images.
_IN_IMAGES: Final = 0.95


class Use(Enum):
    """What the user says about the GPU: nothing, --cuda, or --no-cuda."""

    DETECT = "detect"
    REQUIRE = "require"
    REFUSE = "refuse"


class NoHostMemory(CkptctlError):
    """The machine has no room for a copy of the job's device memory."""

    code = "E_NO_HOST_MEMORY"
    exit_status = ExitStatus.NO_SPACE


class NotInImages(CkptctlError):
    """CRIU's images are smaller than the memory that the GPU's contents were moved to."""

    code = "E_GPU_NOT_IN_IMAGES"
    exit_status = ExitStatus.DUMP_FAILED


@dataclass(slots=True)
class GpuJob:
    """The CUDA processes of one tree and the driver to reach them; `pids` in the order of the tree.

    `device_bytes` is what each pid uses on each GPU by UUID, as far as NVML tells.
    """

    driver: CheckpointDriver
    reason: str
    facts: GpuFacts
    pids: tuple[int, ...]
    device_bytes: tuple[tuple[int, str, int], ...]
    timings: list[Timing] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """Device memory of all processes."""
        return sum(size for _, _, size in self.device_bytes)

    @property
    def workers(self) -> int:
        """How many processes to move at a time: one for each GPU, since each has its own way to host memory.

        Processes that share device memory must take turns; those all use the same GPU or driver 610's job mode.
        """
        return max(1, len({uuid for _, uuid, _ in self.device_bytes}))

    def lock(self, timeout_ms: int) -> None:
        """Lock all processes, or none. Raises CudaError."""
        self.timings += lock_all(self.driver, self.pids, timeout_ms)

    def checkpoint(self) -> None:
        """Move the device memory of all locked processes into host memory. Raises CudaError."""
        self.timings += checkpoint_all(self.driver, self.pids, workers=self.workers)

    def resume(self) -> None:
        """Bring every process back to running, from whatever state it is in, and see that it is. Raises CudaError."""
        if all(self.driver.state(pid) is CudaState.CHECKPOINTED for pid in self.pids):
            self.timings += restore_all(self.driver, self.pids, workers=self.workers)
            self.timings += unlock_all(self.driver, self.pids)
        for pid in self.pids:
            self.timings += bring_to_running(self.driver, pid, limit_s=RESUME_LIMIT_S)


RESUME_LIMIT_S: Final = 600.0


def detect(tree: Tree, use: Use, open_cuda: Callable[[], Choice], read_facts: Callable[[], GpuFacts]) -> GpuJob | None:
    """The job's GPU state; None where it has none.

    The driver is asked, unless nothing hints at a GPU and the user does not insist. Raises NotCudaProcess for --cuda
    without GPU state, Refused for --no-cuda with it, CudaUnavailable where there is GPU use and no way to save it.
    """
    if use is not Use.REQUIRE and not shows_gpu(tree):
        return None
    choice = open_cuda()
    driver = choice.require()
    pids = find_cuda_pids(driver, tree.pids)
    if pids and use is Use.REFUSE:
        driver.close()
        raise Refused(
            f"--no-cuda was given, and {_processes(pids)} of the job hold GPU memory.",
            hint="Leave --no-cuda out: GPU memory is saved with the job.",
        )
    if not pids and use is Use.REQUIRE:
        driver.close()
        raise NotCudaProcess(
            f"--cuda was given, and no process of the job {tree.root.label} holds GPU memory.",
            hint="Name the root of the tree that uses the GPU, or leave --cuda out.",
        )
    if not pids:
        driver.close()
        return None
    facts = read_facts()
    return GpuJob(driver, choice.reason, facts, pids, _device_bytes(facts.gpus, pids))


def shows_gpu(tree: Tree) -> bool:
    """Whether anything in /proc hints at CUDA: its devices open or mapped."""
    return any(_is_device(file.path) for _, file in tree.files(FileKind.DEVICE)) or any(
        _is_device(mapping.path) or _LIBRARY in mapping.path
        for process in tree.processes
        for mapping in process.mappings
    )


def blockers(tree: Tree, job: GpuJob | None, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings on GPU devices that the CUDA steps do not take care of.

    A process that holds CUDA state lets its devices go when it is checkpointed. One that only inherited them, such as a
    forked DataLoader worker, does so from driver 590 on, if the job was started with a job file.
    """
    if job is None:
        return tuple(findings)
    able = job.facts.driver is not None and supports(DriverVersion.parse(job.facts.driver), Feature.JOB_FILE)
    kept = []
    for finding in findings:
        pid = int(dict(finding.data).get("pid", "0")) if finding.check == DEVICE_CHECK else 0
        process = tree.process(pid)
        if finding.check != DEVICE_CHECK or process is None:
            kept.append(finding)
        elif pid not in job.pids and not (able and _JOB_FILE in process.environment_names):
            kept.append(_inherited(process.label, job.facts.driver, able))
    return tuple(kept)


def require_host_memory(job: GpuJob, available_bytes: int) -> None:
    """See that host memory can take what is on the devices. Raises NoHostMemory."""
    wanted = round(job.total_bytes * _HOST_MARGIN)
    if wanted > available_bytes:
        raise NoHostMemory(
            f"The job has {format_size(job.total_bytes)} on its GPUs, which pass through host memory; "
            f"{format_size(available_bytes)} of it are free.",
            hint="Free host memory, or shrink the job's cache on the device (torch.cuda.empty_cache) before the dump.",
        )


def host_bytes(pids: Sequence[int]) -> int:
    """Private memory of these processes: after a checkpoint it holds what was on the device."""
    return sum(memory.anonymous_bytes + memory.swapped_bytes for memory in (read_process(pid).memory for pid in pids))


def require_in_images(page_bytes: int, expected_bytes: int) -> None:
    """See that the images hold the memory that the device's contents were moved to. Raises NotInImages."""
    if page_bytes < expected_bytes * _IN_IMAGES:
        raise NotInImages(
            f"The GPU processes had {format_size(expected_bytes)} of memory after the checkpoint, and the images hold "
            f"only {format_size(page_bytes)}.",
            hint="The dump was given up; report this with the log of criu.",
        )


def bring_back(pids: Iterable[int], open_cuda: Callable[[], Choice]) -> None:
    """Bring processes back to running after an action on them was given up or cut off. Raises CudaError."""
    wanted = tuple(pids)
    if not wanted:
        return
    driver = open_cuda().require()
    try:
        for pid in find_cuda_pids(driver, wanted):
            try:
                bring_to_running(driver, pid, limit_s=RESUME_LIMIT_S)
            except CudaProcessGone:
                continue
    finally:
        driver.close()


def _device_bytes(gpus: Iterable[Gpu], pids: Sequence[int]) -> tuple[tuple[int, str, int], ...]:
    return tuple(
        (process.pid, gpu.uuid, process.used_bytes or 0)
        for gpu in gpus
        for process in gpu.processes
        if process.pid in pids
    )


def _inherited(label: str, driver: str | None, able: bool) -> Finding:
    why = "was not started with a CUDA job file" if able else f"driver {driver} cannot let them go (590 can)"
    return Finding(
        "gpu-inherited",
        "gpu",
        Level.ERROR,
        f"Process {label} inherited the GPU's devices without using CUDA, as forked DataLoader workers do, and "
        + (f"the job {why}." if able else f"{why}."),
        "Use driver 590 or newer and start the job by `cuda-checkpoint --launch-job`; or let workers start by spawn or "
        "forkserver (DataLoader(multiprocessing_context='forkserver')); or use num_workers=0.",
    )


def _is_device(path: str) -> bool:
    return path.startswith(_DEVICE)


def _processes(pids: Sequence[int]) -> str:
    return "the process " + str(pids[0]) if len(pids) == 1 else "the processes " + ", ".join(map(str, pids))
