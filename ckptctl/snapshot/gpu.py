"""The GPU memory of a job: found, moved into host memory before CRIU looks, and moved back when the job is to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from ckptctl.cuda.driver import JOB_FILE, Action, CheckpointDriver, CudaState
from ckptctl.cuda.results import CudaTargetStopped, NotCudaProcess
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.preflight.finding import Finding, Level, Refused
from ckptctl.process.files import FileKind
from ckptctl.process.member import Process, State, read_process
from ckptctl.process.proc import Vanished
from ckptctl.process.tree import Tree
from ckptctl.store import manifest
from ckptctl.units import format_size

# What talks to the driver is loaded by the functions that need it: most dumps have no GPU.
if TYPE_CHECKING:
    from ckptctl.cuda.choice import Choice
    from ckptctl.cuda.operations import Timing
    from ckptctl.host.gpu import Gpu, GpuFacts
    from ckptctl.interrupt import Interrupt

DEVICE_CHECK: Final = "gpu-device"
_RESUME_LIMIT_S: Final = 600.0
_DEVICE: Final = "/dev/nvidia"
_LIBRARY: Final = "libcuda.so"
_HOST_MARGIN: Final = 1.05
_MOVING: Final = (Action.CHECKPOINT, Action.RESTORE)
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

    `device_bytes` is what each pid uses on each GPU by UUID, as far as NVML tells. `in_turn`: the job was started with
    a job file, so its processes may share device memory, which driver 610 wants moved one after the other.
    """

    driver: CheckpointDriver
    reason: str
    facts: GpuFacts
    pids: tuple[int, ...]
    device_bytes: tuple[tuple[int, str, int], ...]
    in_turn: bool
    timings: list[Timing] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        """Device memory of all processes."""
        return sum(size for _, _, size in self.device_bytes)

    @property
    def bytes_by_pid(self) -> dict[int, int]:
        """Device memory of each process."""
        return {pid: sum(size for one, _, size in self.device_bytes if one == pid) for pid in self.pids}

    @property
    def workers(self) -> int:
        """How many processes to move at a time: one for each GPU, since each has its own way to host memory."""
        return 1 if self.in_turn else max(1, len({uuid for _, uuid, _ in self.device_bytes}))

    @property
    def unseen(self) -> str | None:
        """What is not known of the job's device memory, in a sentence; None where all is."""
        missing = sorted(set(self.pids) - {pid for pid, _, _ in self.device_bytes})
        if not missing:
            return None
        return (
            f"NVIDIA's management library does not show how much device memory {_processes(missing)} of the job hold, "
            "as inside containers: whether there is room for it in host memory and on the disk was not checked."
        )

    def lock(self, timeout_ms: int, interrupt: Interrupt) -> None:
        """Lock all processes, or none. Raises CudaError and the interrupt's exceptions."""
        from ckptctl.cuda.operations import lock_all

        self.timings += lock_all(self.driver, self.pids, timeout_ms, interrupt)

    def checkpoint(self) -> None:
        """Move the device memory of all locked processes into host memory. Raises CudaError."""
        from ckptctl.cuda.operations import checkpoint_all

        self.timings += checkpoint_all(self.driver, self.pids, workers=self.workers)

    def resume(self) -> None:
        """Bring every process back to running, from whatever state it is in, and see that it is. Raises CudaError."""
        from ckptctl.cuda.operations import bring_all_to_running

        self.timings += bring_all_to_running(self.driver, self.pids, workers=self.workers, limit_s=_RESUME_LIMIT_S)


def detect(tree: Tree, use: Use, open_cuda: Callable[[], Choice], read_facts: Callable[[], GpuFacts]) -> GpuJob | None:
    """The job's GPU state; None where it has none.

    The driver is asked, unless nothing hints at a GPU and the user does not insist. Raises NotCudaProcess for --cuda
    without GPU state, Refused for --no-cuda with it and for a stopped process, CudaUnavailable where there is GPU use
    and no way to save it.
    """
    hinting = _hinting(tree)
    if use is not Use.REQUIRE and not hinting:
        return None
    choice = open_cuda()
    if choice.driver is None and (use is Use.REFUSE or (use is Use.DETECT and not _holding(tree))):
        return None
    driver = choice.require()
    try:
        pids = _find(driver, tree, hinting)
        _require_agreement(tree, use, pids)
        _require_running(driver, pids)
    except BaseException:
        driver.close()
        raise
    if not pids:
        driver.close()
        return None
    facts = read_facts()
    in_turn = any(JOB_FILE in process.environment_names for process in tree.processes)
    return GpuJob(driver, choice.reason, facts, pids, _device_bytes(facts.gpus, pids), in_turn)


def blockers(tree: Tree, job: GpuJob | None, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings on GPU devices that the CUDA steps do not take care of.

    A process that holds CUDA state lets its devices go when it is checkpointed. One that only inherited them, such as a
    forked DataLoader worker, does so from driver 590 on, if the job was started with a job file.
    """
    if job is None:
        return tuple(findings)
    from ckptctl.cuda.features import DriverVersion, Feature, supports

    able = job.facts.driver is not None and supports(DriverVersion.parse(job.facts.driver), Feature.JOB_FILE)
    kept = []
    for finding in findings:
        pid = int(dict(finding.data).get("pid", "0")) if finding.check == DEVICE_CHECK else 0
        process = tree.process(pid)
        if finding.check != DEVICE_CHECK or process is None:
            kept.append(finding)
        elif pid not in job.pids and not (able and JOB_FILE in process.environment_names):
            kept.append(_inherited(process.label, job.facts.driver, able))
    # A process may have several devices open, each with a finding of its own.
    return tuple(dict.fromkeys(kept))


def require_host_memory(job: GpuJob, tree: Tree, available_bytes: int) -> None:
    """See that host memory can take what is on the devices: the machine's, and what limits leave. Raises NoHostMemory.

    A process that goes over the limit of its cgroup in the middle of a checkpoint would be killed by the kernel.
    """
    from ckptctl.host import cgroup

    _require_room(job.total_bytes, available_bytes, "the machine has", "Free host memory")
    on_devices = job.bytes_by_pid
    groups: dict[tuple[str, ...], int] = {}
    for process in tree.processes:
        if process.pid in on_devices:
            groups[process.cgroups] = groups.get(process.cgroups, 0) + on_devices[process.pid]
    for group, size_bytes in groups.items():
        left_bytes = cgroup.memory_left_bytes(group)
        if left_bytes is not None:
            _require_room(size_bytes, left_bytes, "the limit of its cgroup leaves", "Raise the job's memory limit")


def host_bytes(pids: Sequence[int]) -> int:
    """Private memory of these processes: after a checkpoint it holds what was on the device."""
    return sum(_private_bytes(pid) for pid in pids)


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
    from ckptctl.cuda.operations import bring_all_to_running, find_cuda_pids

    driver = open_cuda().require()
    try:
        bring_all_to_running(driver, find_cuda_pids(driver, wanted), workers=len(wanted), limit_s=_RESUME_LIMIT_S)
    finally:
        driver.close()


def record_timings(timings: Iterable[Timing], moved_bytes: Mapping[int, int]) -> tuple[manifest.CudaTiming, ...]:
    """The timings as manifest and reports show them, in the order in which the actions began.

    `moved_bytes` is the device memory of each pid.
    """
    ordered = sorted(timings, key=lambda timing: timing.began_s)
    return tuple(
        manifest.CudaTiming(
            pid=one.pid,
            action=one.action.value,
            began_s=one.began_s - ordered[0].began_s,
            seconds=one.seconds,
            bytes_per_second=moved_bytes.get(one.pid, 0) / one.seconds
            if one.action in _MOVING and moved_bytes.get(one.pid) and one.seconds
            else None,
        )
        for one in ordered
    )


def _find(driver: CheckpointDriver, tree: Tree, hinting: frozenset[int]) -> tuple[int, ...]:
    """The CUDA processes as the driver says. It cannot be asked about stopped ones, so those must show no GPU use."""
    from ckptctl.cuda.operations import find_cuda_pids

    asked = [one.pid for one in tree.processes if one.state is not State.STOPPED or one.pid in hinting]
    try:
        return find_cuda_pids(driver, asked)
    except CudaTargetStopped as error:
        raise Refused(
            "The job uses a GPU, and only a process that runs can hand its device memory to the driver. "
            + error.message,
            hint=error.hint,
        ) from error


def _require_running(driver: CheckpointDriver, pids: tuple[int, ...]) -> None:
    """See that nobody else has one of them in hand, who would not expect us to let it run when a dump fails."""
    for pid in pids:
        state = driver.state(pid)
        if state is not CudaState.RUNNING:
            raise Refused(
                f"The GPU state of process {pid} is {state.name.lower()}: another program has checkpointed it.",
                hint=f"Let that program bring it back, or do it by hand: cuda-checkpoint --toggle --pid {pid}"
                if state is not CudaState.FAILED
                else f"The driver cannot bring it back: end the process ({pid}) and restore an earlier snapshot.",
            )


def _require_agreement(tree: Tree, use: Use, pids: tuple[int, ...]) -> None:
    if pids and use is Use.REFUSE:
        raise Refused(
            f"--no-cuda was given, and {_processes(pids)} of the job hold GPU memory.",
            hint="Leave --no-cuda out: GPU memory is saved with the job.",
        )
    if not pids and use is Use.REQUIRE:
        raise NotCudaProcess(
            f"--cuda was given, and no process of the job {tree.root.label} holds GPU memory.",
            hint="Name the root of the tree that uses the GPU, or leave --cuda out.",
        )


def _holding(tree: Tree) -> frozenset[int]:
    """Who has a GPU device open or mapped."""
    opened = {process.pid for process, file in tree.files(FileKind.DEVICE) if _is_device(file.path)}
    mapped = {one.pid for one in tree.processes if any(_is_device(item.path) for item in one.mappings)}
    return frozenset(opened | mapped)


def _hinting(tree: Tree) -> frozenset[int]:
    """In whom anything in /proc hints at CUDA: a device, or the driver's library, as in one that is checkpointed."""
    return _holding(tree) | {one.pid for one in tree.processes if _has_library(one)}


def _has_library(process: Process) -> bool:
    return any(_LIBRARY in mapping.path for mapping in process.mappings)


def _require_room(wanted_bytes: int, left_bytes: int, whose: str, remedy: str) -> None:
    if round(wanted_bytes * _HOST_MARGIN) > left_bytes:
        raise NoHostMemory(
            f"The job has {format_size(wanted_bytes)} on its GPUs, which move into host memory for the dump; "
            f"{whose} {format_size(left_bytes)} left.",
            hint=f"{remedy}, or shrink the job's cache on the device (torch.cuda.empty_cache) before the dump.",
        )


def _private_bytes(pid: int) -> int:
    try:
        memory = read_process(pid).memory
    except Vanished:  # criu will say so
        return 0
    return memory.anonymous_bytes + memory.swapped_bytes


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
