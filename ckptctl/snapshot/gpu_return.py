"""Device memory of a restored job: moved back to the GPUs, unlocked, and seen to be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from ckptctl.cuda.driver import CheckpointDriver, CudaState, GpuPair
from ckptctl.cuda.operations import Timing, bring_all_to_running, restore_all, unlock_all
from ckptctl.cuda.results import CudaError
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.gpu import GpuFacts
from ckptctl.preflight.gpu import GpuPlan
from ckptctl.store import manifest
from ckptctl.units import format_size

_LIMIT_S: Final = 600.0
_LOCK_TIMEOUT_MS: Final = 10_000
# The driver's count holds contexts and caches that may come back smaller.
_BACK: Final = 0.5


class GpuNotRestored(CkptctlError):
    """criu restored the processes, but not all of their GPU memory is back where it belongs."""

    code = "E_GPU_NOT_RESTORED"
    exit_status = ExitStatus.RESTORE_FAILED


def restore(
    driver: CheckpointDriver, saved: manifest.Gpu, pids: Sequence[int], pairs: tuple[GpuPair, ...]
) -> tuple[Timing, ...]:
    """Move device memory back and unlock, then see that every process runs. Raises GpuNotRestored.

    `pids` are those of `saved.pids`, as seen from here. Whatever criu said before, only this makes a restore.
    """
    try:
        waiting = [pid for pid in pids if driver.state(pid) is CudaState.CHECKPOINTED]
        timings = restore_all(driver, waiting, pairs, workers=saved.workers)
        timings += unlock_all(driver, [pid for pid in pids if driver.state(pid) is CudaState.LOCKED])
        return timings + bring_all_to_running(driver, pids, workers=saved.workers, limit_s=_LIMIT_S)
    except CudaError as error:
        raise GpuNotRestored(
            f"criu restored the job, but its GPU memory could not be given back: {error.message}",
            hint=error.hint,
            details=error.details,
        ) from error


def require_on_devices(
    saved: manifest.Gpu, pids: Sequence[int], placed: GpuPlan, read_facts: Callable[[], GpuFacts]
) -> None:
    """See that each process uses the GPU that it should, as far as NVML told at the dump. Raises GpuNotRestored.

    Inside a container NVML shows no processes that we know: what all of them use on the GPU is looked at then.
    """
    if not saved.memory:
        return
    gpus = read_facts().gpus
    seen = {(process.pid, gpu.uuid): process.used_bytes or 0 for gpu in gpus for process in gpu.processes}
    known = any(pid in pids for pid, _ in seen)
    here = dict(zip(saved.pids, pids, strict=True))
    for one in saved.memory:
        uuid = placed.place(one.uuid)
        in_all = next((gpu.used_bytes for gpu in gpus if gpu.uuid == uuid), 0)
        used = seen.get((here[one.pid], uuid), 0) if known else in_all
        if used < one.size_bytes * _BACK:
            raise GpuNotRestored(
                f"Process {here[one.pid]} had {format_size(one.size_bytes)} on GPU {one.uuid}, and has "
                f"{format_size(used)} on {uuid} after the restore.",
                hint="Restore it again; if this repeats, report it with the driver's version.",
            )


def bytes_by_pid(saved: manifest.Gpu, pids: Sequence[int]) -> dict[int, int]:
    """Device memory of each of `pids`, which are those of `saved.pids` as seen from here."""
    return {
        here: sum(one.size_bytes for one in saved.memory if one.pid == pid)
        for pid, here in zip(saved.pids, pids, strict=True)
    }


def put_away(driver: CheckpointDriver, pids: Sequence[int]) -> None:
    """Checkpoint again what came up, before it is ended: a process that is killed on the GPU may hold up the driver."""
    for pid in pids:
        with suppress(CudaError):
            if driver.state(pid) is CudaState.RUNNING:
                driver.lock(pid, _LOCK_TIMEOUT_MS)
            if driver.state(pid) is CudaState.LOCKED:
                driver.checkpoint(pid)
