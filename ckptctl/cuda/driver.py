"""What every way of driving NVIDIA's checkpoint interface offers, in the words of cuda.h."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Protocol

# The variable in the environment of a job that was started so that its processes are saved together (driver 590).
JOB_FILE: Final = "CUDA_CHECKPOINT_JOB_FILE"


class CudaState(IntEnum):
    """Where a process stands; the numbers are those of CUprocessState in cuda.h (4 and 5 from CUDA 13.4 on)."""

    RUNNING = 0
    LOCKED = 1
    CHECKPOINTED = 2
    FAILED = 3
    CHECKPOINTING = 4
    RESTORING = 5


class Action(Enum):
    """What can be asked of the driver about one process; the values are the names in messages and reports."""

    STATE = "state"
    RESTORE_THREAD = "restore thread"
    LOCK = "lock"
    CHECKPOINT = "checkpoint"
    RESTORE = "restore"
    UNLOCK = "unlock"


@dataclass(frozen=True, slots=True)
class GpuPair:
    """A GPU of the checkpoint and the GPU that takes its place, as NVIDIA writes UUIDs: `GPU-` and 36 characters."""

    old_uuid: str
    new_uuid: str


class CheckpointDriver(Protocol):
    """One process at a time is locked, checkpointed, restored and unlocked; pids are those of our own PID namespace.

    The calls are safe in several threads, for different pids at once. A process that is stopped (SIGSTOP, ptrace, a
    frozen cgroup) cannot answer the driver: every action on it is refused with CudaTargetStopped.
    Only `lock` has a time limit. The others go to their end even when ckptctl is killed meanwhile, because a target
    whose operation is cut short can be beyond repair; the next action on that pid waits for such a leftover.
    Each method raises the CudaError that `ckptctl.cuda.results` gives for what the driver answered.
    """

    @property
    def name(self) -> str:
        """What it is, for reports."""
        ...

    def state(self, pid: int) -> CudaState:
        """Where a CUDA process stands. Raises NotCudaProcess for one that holds no CUDA state."""
        ...

    def restore_thread(self, pid: int) -> int | None:
        """The id of the thread that serves the driver in this process; None if it holds no CUDA state."""
        ...

    def lock(self, pid: int, timeout_ms: int) -> None:
        """running → locked: CUDA calls of the process block, work that was submitted is waited for.

        Raises CudaBusy after `timeout_ms` (more than 0): the process is then running as before.
        """
        ...

    def checkpoint(self, pid: int) -> None:
        """locked → checkpointed: device memory moves into memory of the process, the GPU is let go."""
        ...

    def restore(self, pid: int, gpu_map: tuple[GpuPair, ...] = ()) -> None:
        """checkpointed → locked: device memory moves back, to other GPUs where `gpu_map` says so.

        The map is empty, or names every GPU that the kernel driver shows, identity pairs included.
        """
        ...

    def unlock(self, pid: int) -> None:
        """locked → running."""
        ...

    def close(self) -> None:
        """Let go of what the driver needed, its child process above all; may be called twice."""
        ...
