"""What is done to the CUDA processes of a whole tree: found, locked, checkpointed, and brought back to running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from ckptctl.cuda.driver import Action, CheckpointDriver, CudaState, GpuPair
from ckptctl.cuda.results import (
    CudaBusy,
    CudaError,
    CudaLost,
    CudaOutOfMemory,
    CudaProcessGone,
    CudaRestoreRefused,
    CudaStuck,
    CudaTargetStopped,
)
from ckptctl.interrupt import Interrupt, Never

# The time for the lock is spent in several tries, each twice as long as the one before. A process that was locked while
# another waits for its part of a collective can hold up both: letting all run on for a moment gets past that. And a
# lock that is under way cannot be called off, so Ctrl-C is listened to between the tries.
_FIRST_TRY_MS: Final = 1000
_BETWEEN_TRIES_S: Final = 0.05
_POLL_S: Final = 0.05
# Each pass through the loop that brings a process back makes one transition; two are needed, the others are for
# operations of a ckptctl that was killed, which come to their end meanwhile.
_MAX_TRANSITIONS: Final = 8

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one action on one process took; `began_s` is the time of `time.monotonic`."""

    pid: int
    action: Action
    seconds: float
    began_s: float


def find_cuda_pids(driver: CheckpointDriver, pids: Iterable[int]) -> tuple[int, ...]:
    """Those of `pids` that hold CUDA state, in the order given, as the driver itself says; the dead hold none."""
    return tuple(pid for pid in pids if _holds_state(driver, pid))


def lock_all(
    driver: CheckpointDriver, pids: Sequence[int], timeout_ms: int, interrupt: Interrupt | None = None
) -> tuple[Timing, ...]:
    """Lock all processes, or none: whatever fails, those that were locked are running again when this raises."""
    listened = interrupt or Never()
    tries = _tries_ms(timeout_ms)
    for number, try_ms in enumerate(tries, 1):
        listened.check()
        try:
            return _lock_once(driver, pids, try_ms)
        except CudaBusy:
            if number == len(tries):
                raise
            time.sleep(_BETWEEN_TRIES_S)
    raise AssertionError("unreachable")


def checkpoint_all(driver: CheckpointDriver, pids: Sequence[int], *, workers: int) -> tuple[Timing, ...]:
    """Checkpoint all locked processes, `workers` at a time; when one fails the others are brought to their end.

    Processes that share device memory need `workers=1`, and then keep their order.
    """
    return _on_each(Action.CHECKPOINT, driver.checkpoint, pids, workers)


def restore_all(
    driver: CheckpointDriver, pids: Sequence[int], gpu_map: tuple[GpuPair, ...] = (), *, workers: int
) -> tuple[Timing, ...]:
    """Restore all checkpointed processes, `workers` at a time; they are locked then. See `checkpoint_all`."""
    return _on_each(Action.RESTORE, lambda pid: driver.restore(pid, gpu_map), pids, workers)


def unlock_all(driver: CheckpointDriver, pids: Sequence[int]) -> tuple[Timing, ...]:
    """Let all locked processes run."""
    return _on_each(Action.UNLOCK, driver.unlock, pids, 1)


def bring_all_to_running(
    driver: CheckpointDriver, pids: Sequence[int], *, workers: int, limit_s: float
) -> tuple[Timing, ...]:
    """Bring every process back to running, `workers` at a time, even when one cannot be; see `bring_to_running`.

    Raises the first failure once all are done with, the others as notes on it.
    """
    if not pids:
        return ()

    def bring(pid: int) -> tuple[Timing, ...] | CudaError:
        try:
            return bring_to_running(driver, pid, limit_s=limit_s)
        except CudaError as error:
            return error

    return tuple(timing for timings in _gather(bring, pids, workers) for timing in timings)


def bring_to_running(driver: CheckpointDriver, pid: int, *, limit_s: float) -> tuple[Timing, ...]:
    """Bring a process back to running from whatever state it is in, and see that it is; safe to repeat.

    A checkpoint or restore that someone else has under way is waited for, up to `limit_s` seconds.
    Raises CudaLost when the driver has given the process up, CudaStuck when it does not get there otherwise,
    CudaTargetStopped while it is stopped, CudaProcessGone when it has ended.
    """
    timings: list[Timing] = []
    refusal: CudaError | None = None
    deadline = time.monotonic() + limit_s
    for _ in range(_MAX_TRANSITIONS):
        state = _settled(driver, pid, deadline)
        if state is CudaState.RUNNING:
            return tuple(timings)
        if state is CudaState.FAILED:
            raise _lost(pid, refusal) from refusal
        try:
            timings.extend(_one_step_back(driver, pid, state))
        except (CudaProcessGone, CudaTargetStopped):
            raise
        except CudaError as error:
            # Perhaps someone's operation ended between our look and our act; look again.
            refusal = error
            time.sleep(_POLL_S)
    if isinstance(refusal, CudaOutOfMemory | CudaRestoreRefused):
        raise _lost(pid, refusal) from refusal
    raise _stuck(pid, refusal.message if refusal else f"it stays {state.name.lower()}") from refusal


def _holds_state(driver: CheckpointDriver, pid: int) -> bool:
    try:
        return driver.restore_thread(pid) is not None
    except CudaProcessGone:
        return False


def _one_step_back(driver: CheckpointDriver, pid: int, state: CudaState) -> tuple[Timing, ...]:
    if state is CudaState.LOCKED:
        return _on_each(Action.UNLOCK, driver.unlock, (pid,), 1)
    return _on_each(Action.RESTORE, driver.restore, (pid,), 1)


def _settled(driver: CheckpointDriver, pid: int, deadline: float) -> CudaState:
    """The state of a process once nobody has a checkpoint or a restore of it under way."""
    while (state := driver.state(pid)) in (CudaState.CHECKPOINTING, CudaState.RESTORING):
        if time.monotonic() > deadline:
            raise _stuck(pid, f"it has been {state.name.lower()} for too long")
        time.sleep(_POLL_S)
    return state


def _lock_once(driver: CheckpointDriver, pids: Sequence[int], timeout_ms: int) -> tuple[Timing, ...]:
    try:
        # All at once: the moments at which the processes come to rest should lie close together.
        return _on_each(Action.LOCK, lambda pid: driver.lock(pid, timeout_ms), pids, len(pids))
    except CudaError as error:
        for pid in pids:
            try:
                if driver.state(pid) is CudaState.LOCKED:
                    driver.unlock(pid)
            except CudaError as other:
                error.add_note(other.message)
        raise


def _tries_ms(timeout_ms: int) -> tuple[int, ...]:
    """How long each try of the lock may take; together, the whole time."""
    tries, left_ms, next_ms = [], max(1, timeout_ms), _FIRST_TRY_MS
    # A rest that is shorter than the try would be is added to it.
    while left_ms >= 2 * next_ms:
        tries.append(next_ms)
        left_ms -= next_ms
        next_ms *= 2
    return (*tries, left_ms)


def _on_each(action: Action, act: Callable[[int], None], pids: Sequence[int], workers: int) -> tuple[Timing, ...]:
    """Act on every process even when one fails; then raise the first failure, with the others as notes on it."""

    def timed(pid: int) -> Timing | CudaError:
        began_s = time.monotonic()
        try:
            act(pid)
        except CudaError as error:
            return error
        return Timing(pid, action, time.monotonic() - began_s, began_s)

    return _gather(timed, pids, workers) if pids else ()


def _gather(act: Callable[[int], ResultT | CudaError], pids: Sequence[int], workers: int) -> tuple[ResultT, ...]:
    with ThreadPoolExecutor(max_workers=min(workers, len(pids)), thread_name_prefix="cuda") as pool:
        results = tuple(pool.map(act, pids))
    errors = [result for result in results if isinstance(result, CudaError)]
    if not errors:
        return tuple(result for result in results if not isinstance(result, CudaError))
    for other in errors[1:]:
        errors[0].add_note(other.message)
    raise errors[0]


def _lost(pid: int, cause: CudaError | None) -> CudaLost:
    why = f" {cause.message}" if cause is not None else ""
    return CudaLost(
        f"The GPU state of process {pid} is lost: the driver cannot bring it back to running.{why}",
        hint=f"End the process ({pid}) and restore the job from its last snapshot.",
        details={"pid": pid},
        outcome=f"Process {pid} is lost.",
    )


def _stuck(pid: int, why: str) -> CudaStuck:
    return CudaStuck(
        f"Process {pid} could not be brought back to running: {why}",
        hint="See that no other checkpointing tool works on it, then run ckptctl again: it tries once more.",
        details={"pid": pid},
        outcome=f"Process {pid} waits in the CUDA driver.",
    )
