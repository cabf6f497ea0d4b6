"""What the driver's answers mean: every result code becomes an error that names the cause and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from ckptctl.cuda import guard
from ckptctl.cuda.driver import Action
from ckptctl.errors import CkptctlError, ExitStatus


class CudaResult(IntEnum):
    """The result codes (CUresult) that the checkpoint interface is known to give; numbers of cuda.h."""

    SUCCESS = 0
    INVALID_VALUE = 1
    OUT_OF_MEMORY = 2
    NOT_INITIALIZED = 3
    NO_DEVICE = 100
    INVALID_CONTEXT = 201
    OPERATING_SYSTEM = 304
    ILLEGAL_STATE = 401
    NOT_FOUND = 500
    NOT_READY = 600
    NOT_PERMITTED = 800
    NOT_SUPPORTED = 801
    STREAM_CAPTURE_UNSUPPORTED = 900
    UNKNOWN = 999


class CudaError(CkptctlError):
    """The driver did not do what it was asked to do with a process."""

    code = "E_CUDA"
    exit_status = ExitStatus.DUMP_FAILED


class CudaUnavailable(CudaError):
    """There is no way to drive the checkpoint interface on this machine."""

    code = "E_CUDA_UNAVAILABLE"
    exit_status = ExitStatus.INCOMPATIBLE


class NotCudaProcess(CudaError):
    """The process holds no CUDA state."""

    code = "E_CUDA_NO_STATE"
    exit_status = ExitStatus.PREFLIGHT_REFUSED


class CudaProcessGone(CudaError):
    """The process has ended."""

    code = "E_CUDA_PROCESS_GONE"
    exit_status = ExitStatus.NO_PROCESS


class CudaTargetStopped(CudaError):
    """The process is stopped, so that the thread in it that serves the driver cannot answer."""

    code = "E_CUDA_STOPPED"


class CudaBusy(CudaError):
    """The GPU work of a process did not come to rest in time; the process is running as before."""

    code = "E_CUDA_BUSY"
    exit_status = ExitStatus.TIMEOUT


class CudaWrongState(CudaError):
    """The process is not in the state that the action starts from."""

    code = "E_CUDA_STATE"


class CudaUnsupported(CudaError):
    """The process uses the GPU in a way that this driver cannot checkpoint."""

    code = "E_CUDA_UNSUPPORTED"
    exit_status = ExitStatus.PREFLIGHT_REFUSED


class CudaNotPermitted(CudaError):
    """The driver or the system refused."""

    code = "E_CUDA_NOT_PERMITTED"
    exit_status = ExitStatus.NO_PROCESS


class CudaOutOfMemory(CudaError):
    """There was not enough memory to move device memory away or back."""

    code = "E_CUDA_MEMORY"


class CudaBadMap(CudaError):
    """The driver does not take the GPU map."""

    code = "E_CUDA_GPU_MAP"
    exit_status = ExitStatus.USAGE


class CudaRestoreRefused(CudaError):
    """A restore that the operating system refused, or that an earlier failed restore made impossible for good."""

    code = "E_CUDA_RESTORE_REFUSED"
    exit_status = ExitStatus.RESTORE_FAILED


class CudaLost(CudaError):
    """The GPU state of a process is gone for good."""

    code = "E_CUDA_LOST"
    exit_status = ExitStatus.PROCESS_LOST


class CudaStuck(CudaError):
    """A process could not be brought back to running, though its GPU state is not known to be lost."""

    code = "E_CUDA_STUCK"
    exit_status = ExitStatus.PROCESS_LOST


class CudaHelperLost(CudaError):
    """The child process that talks to the driver ended before it answered."""

    code = "E_CUDA_HELPER"


class CudaSilent(CudaError):
    """The driver was only asked something, and did not answer in time. Nothing was touched."""

    code = "E_CUDA_SILENT"
    exit_status = ExitStatus.TIMEOUT


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one result means: the error's class, why it happens, what to do."""

    kind: type[CudaError]
    cause: str
    remedy: str


_WITHOUT_STATE: Final = Meaning(
    NotCudaProcess,
    "it holds no CUDA state",
    "Choose a process that uses the GPU, or leave GPU memory out with --no-cuda.",
)
_STATE: Final = Meaning(
    CudaWrongState,
    "it is not in the state that this starts from; another program may be checkpointing it",
    "Look with `nvidia-smi` and `ps` for another checkpointing tool, then try again.",
)
_NO_RIGHTS: Final = Meaning(
    CudaNotPermitted,
    "the operating system refused access to it",
    "Run ckptctl as root, or with CAP_SYS_PTRACE over the process and a readable /proc.",
)
_SOME_GPUS: Final = Meaning(
    CudaNotPermitted,
    "the driver did not permit it; drivers before 575.57.08 refuse where a container sees only some of the GPUs, "
    "and some refuse without persistence mode",
    "Update the driver, show the container all GPUs, or run `nvidia-smi -pm 1`.",
)
_UNSUPPORTED: Final = Meaning(
    CudaUnsupported,
    "it uses the GPU in a way this driver cannot save: managed memory, memory shared between processes, NVLink "
    "multicast or MPS; or the driver is too old (PyTorch needs 570, ARM processors 595)",
    "Turn that feature off in the job (NCCL_CUMEM_ENABLE=0, NCCL_NVLS_ENABLE=0, no paged optimizers), or update "
    "the driver.",
)
_NO_INIT: Final = Meaning(
    CudaUnavailable,
    "the driver did not start up here",
    "Run `nvidia-smi`: it says whether the driver works and sees a GPU.",
)

_BY_ACTION: Final[Mapping[tuple[Action, CudaResult], Meaning]] = MappingProxyType(
    {
        (Action.STATE, CudaResult.INVALID_VALUE): _WITHOUT_STATE,
        (Action.STATE, CudaResult.NOT_INITIALIZED): _WITHOUT_STATE,
        (Action.RESTORE_THREAD, CudaResult.INVALID_VALUE): _WITHOUT_STATE,
        (Action.RESTORE_THREAD, CudaResult.NOT_INITIALIZED): _WITHOUT_STATE,
        (Action.LOCK, CudaResult.INVALID_VALUE): _WITHOUT_STATE,
        (Action.LOCK, CudaResult.NOT_INITIALIZED): _WITHOUT_STATE,
        (Action.CHECKPOINT, CudaResult.OUT_OF_MEMORY): Meaning(
            CudaOutOfMemory,
            "the machine's memory has no room for its device memory, or the GPU is split by MIG, which the driver "
            "cannot checkpoint",
            "Free host memory or raise the cgroup's limit; turn MIG off.",
        ),
        (Action.RESTORE, CudaResult.OUT_OF_MEMORY): Meaning(
            CudaOutOfMemory,
            "the GPU has too little free memory; the driver cannot restore this process again, now or later",
            "Free the GPU, then restore from the snapshot: this process itself must be ended.",
        ),
        (Action.RESTORE, CudaResult.INVALID_VALUE): Meaning(
            CudaBadMap,
            "the GPU map does not name every GPU that the driver shows here, or a process that shares memory with this "
            "one is missing",
            "List every GPU once on each side of the map, by UUID; restore all processes of the job.",
        ),
        (Action.RESTORE, CudaResult.OPERATING_SYSTEM): Meaning(
            CudaRestoreRefused,
            "the operating system refused, or an earlier restore of this process ran out of device memory, after which "
            "the driver refuses for good",
            "Run as root; if an earlier restore failed, end the process and restore from the snapshot.",
        ),
    }
)

_BY_RESULT: Final[Mapping[CudaResult, Meaning]] = MappingProxyType(
    {
        CudaResult.NOT_READY: Meaning(
            CudaBusy,
            "its GPU work did not come to rest in time, for example a collective that waits for another process",
            "Dump all processes of the job together, at a moment without a long kernel, or allow more time.",
        ),
        CudaResult.ILLEGAL_STATE: _STATE,
        CudaResult.OPERATING_SYSTEM: _NO_RIGHTS,
        CudaResult.NOT_PERMITTED: _SOME_GPUS,
        CudaResult.NOT_SUPPORTED: _UNSUPPORTED,
        CudaResult.STREAM_CAPTURE_UNSUPPORTED: _UNSUPPORTED,
        CudaResult.OUT_OF_MEMORY: Meaning(CudaOutOfMemory, "memory ran out", "Free host and device memory."),
        CudaResult.NOT_INITIALIZED: _NO_INIT,
        CudaResult.NO_DEVICE: _NO_INIT,
        CudaResult.INVALID_CONTEXT: Meaning(
            CudaError,
            "one of its CUDA contexts is not valid",
            "The job's log may name a CUDA error from before; restart the job from its last snapshot.",
        ),
        CudaResult.NOT_FOUND: Meaning(
            CudaUnavailable, "the driver does not know the function", "Install driver 570 or newer."
        ),
    }
)

_OTHER: Final = Meaning(
    CudaError, "the driver gave no reason", "Look into the kernel's log (`dmesg`) for lines with NVRM or Xid."
)


def meaning(action: Action, result: int) -> Meaning:
    """What a result other than SUCCESS means for this action."""
    try:
        known = CudaResult(result)
    except ValueError:
        return _OTHER
    return _BY_ACTION.get((action, known)) or _BY_RESULT.get(known, _OTHER)


def failure(action: Action, pid: int, result: int) -> CudaError:
    """The error for a process on which an action gave this result."""
    said = meaning(action, result)
    name = CudaResult(result).name if result in set(CudaResult) else "not known here"
    return said.kind(
        f"CUDA {action.value} of process {pid} failed: {said.cause} (CUresult {result}, {name}).",
        hint=said.remedy,
        details={"pid": pid, "action": action.value, "cuda_result": result, "cuda_result_name": name},
    )


def refuse_unable(action: Action, pid: int) -> None:
    """Raise CudaProcessGone or CudaTargetStopped for a process that cannot answer the driver now."""
    if guard.is_gone(pid):
        raise process_gone(action, pid)
    if guard.is_stopped(pid):
        raise CudaTargetStopped(
            f"CUDA {action.value} of process {pid} is not possible: the process is stopped.",
            hint=f"Let it run first: kill -CONT {pid}.",
        )


def process_gone(action: Action, pid: int) -> CudaProcessGone:
    """The error for a process that has ended."""
    return CudaProcessGone(f"CUDA {action.value} of process {pid} is not possible: the process has ended.")
