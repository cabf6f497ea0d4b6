"""NVIDIA's `cuda-checkpoint` utility, for machines that have it but not the packages for the driver interface.

Its options and output: README of NVIDIA/cuda-checkpoint; `--get-state` and `--timeout` came with driver 570.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ckptctl import command
from ckptctl.cuda import guard
from ckptctl.cuda.driver import Action, CudaState, GpuPair
from ckptctl.cuda.results import (
    CudaError,
    CudaResult,
    CudaUnavailable,
    NotCudaProcess,
    failure,
    process_gone,
    refuse_unable,
)

PROGRAM: Final = "cuda-checkpoint"
# Options that every version which can do all we need names in its help.
_NEEDED_OPTIONS: Final = ("--action", "--get-state", "--get-restore-tid", "--timeout")
QUERY_LIMIT_S: Final = 60.0
_NO_THREAD: Final = "Could not find restore thread"
# cuGetErrorString of the results in `CudaResult`; the utility prints nothing else about the reason.
_RESULT_OF_TEXT: Final[Mapping[str, CudaResult]] = MappingProxyType(
    {
        "invalid argument": CudaResult.INVALID_VALUE,
        "out of memory": CudaResult.OUT_OF_MEMORY,
        "initialization error": CudaResult.NOT_INITIALIZED,
        "no CUDA-capable device is detected": CudaResult.NO_DEVICE,
        "invalid device context": CudaResult.INVALID_CONTEXT,
        "OS call failed or operation not supported on this OS": CudaResult.OPERATING_SYSTEM,
        "the operation cannot be performed in the present state": CudaResult.ILLEGAL_STATE,
        "named symbol not found": CudaResult.NOT_FOUND,
        "device not ready": CudaResult.NOT_READY,
        "operation not permitted": CudaResult.NOT_PERMITTED,
        "operation not supported": CudaResult.NOT_SUPPORTED,
        "operation not permitted when stream is capturing": CudaResult.STREAM_CAPTURE_UNSUPPORTED,
        "unknown error": CudaResult.UNKNOWN,
    }
)


class CheckpointUtility:
    """The installed `cuda-checkpoint`; made by `open_utility`."""

    def __init__(self, program: Path, environment: Mapping[str, str], query_limit_s: float) -> None:
        self._program = program
        self._environment = environment
        self._query_limit_s = query_limit_s

    @property
    def name(self) -> str:
        """What it is, for reports."""
        return f"{PROGRAM} utility"

    def state(self, pid: int) -> CudaState:
        """See CheckpointDriver."""
        refuse_unable(Action.STATE, pid)
        done = self._query("--get-state", pid)
        try:
            if done.status == 0:
                return CudaState[done.stdout.strip().upper()]
        except KeyError:
            raise CudaError(
                f"{PROGRAM} reports a state of process {pid} not known here: {done.stdout!r}.",
                hint="This driver is newer than ckptctl knows: use a newer ckptctl.",
            ) from None
        raise self._failure(Action.STATE, pid, done.stderr or done.stdout)

    def restore_thread(self, pid: int) -> int | None:
        """See CheckpointDriver."""
        refuse_unable(Action.RESTORE_THREAD, pid)
        done = self._query("--get-restore-tid", pid)
        said = done.stdout.strip()
        if done.status == 0 and said.isdecimal():
            return int(said)
        if _NO_THREAD in done.stderr + done.stdout:
            return None
        error = self._failure(Action.RESTORE_THREAD, pid, done.stderr or done.stdout)
        if isinstance(error, NotCudaProcess):
            return None
        raise error

    def lock(self, pid: int, timeout_ms: int) -> None:
        """See CheckpointDriver."""
        self._act(Action.LOCK, pid, "--timeout", str(timeout_ms), wait_s=timeout_ms / 1000)

    def checkpoint(self, pid: int) -> None:
        """See CheckpointDriver."""
        self._act(Action.CHECKPOINT, pid)

    def restore(self, pid: int, gpu_map: tuple[GpuPair, ...] = ()) -> None:
        """See CheckpointDriver."""
        pairs = ",".join(f"{pair.old_uuid}={pair.new_uuid}" for pair in gpu_map)
        self._act(Action.RESTORE, pid, *(("--device-map", pairs) if pairs else ()))

    def unlock(self, pid: int) -> None:
        """See CheckpointDriver."""
        self._act(Action.UNLOCK, pid)

    def close(self) -> None:
        """Nothing is held between two calls."""

    def _query(self, option: str, pid: int) -> command.Completed:
        return command.run(
            (self._program, option, "--pid", str(pid)),
            timeout_s=self._query_limit_s,
            ok=None,
            environment=self._environment,
        )

    def _act(self, action: Action, pid: int, *options: str, wait_s: float | None = None) -> None:
        """Run one action to its end, whatever happens to us: in a session of its own, and never killed."""
        refuse_unable(action, pid)
        try:
            held = guard.take(pid, wait_s)
        except TimeoutError:
            raise failure(action, pid, CudaResult.NOT_READY) from None
        try:
            status, said = self._run_to_end(
                ("--action", action.value, "--pid", str(pid), *options), () if held is None else (held,)
            )
        finally:
            if held is not None:
                os.close(held)
        if status:
            raise self._failure(action, pid, said or command.describe_status(status))

    def _run_to_end(self, words: tuple[str, ...], pass_fds: tuple[int, ...]) -> tuple[int, str]:
        child, said = command.start_captured((self._program, *words), environment=self._environment, pass_fds=pass_fds)
        with said:
            try:
                status = child.wait()
            finally:
                child.close()
            return status, said.read().decode(errors="replace").strip()

    def _failure(self, action: Action, pid: int, said: str) -> CudaError:
        if guard.is_gone(pid):
            return process_gone(action, pid)
        quoted = re.findall(r'"([^"]*)"', said)
        result = _RESULT_OF_TEXT.get(quoted[-1]) if quoted else None
        error = failure(action, pid, CudaResult.UNKNOWN if result is None else result)
        error.details["output"] = said
        return error


def open_utility(
    search_path: str, environment: Mapping[str, str] | None = None, query_limit_s: float = QUERY_LIMIT_S
) -> CheckpointUtility:
    """Find the utility in `search_path` (as in $PATH) and see that it can do what we need.

    Raises CudaUnavailable, and command.CommandFailed where it does not answer a question within `query_limit_s`.
    """
    found = shutil.which(PROGRAM, path=search_path)
    if found is None:
        raise CudaUnavailable(
            f"NVIDIA's utility {PROGRAM} is not installed.",
            hint=f"Put {PROGRAM} on the PATH, or install ckptctl with its extra [cuda].",
        )
    said = command.run((found, "--help"), timeout_s=query_limit_s, ok=None, environment=environment)
    text = said.stdout + said.stderr
    missing = [option for option in _NEEDED_OPTIONS if option not in text]
    if said.status or missing:
        why = f"it lacks {', '.join(missing)}" if said.status == 0 else f"it says: {text.strip()[-200:]}"
        raise CudaUnavailable(
            f"NVIDIA's utility {found} cannot be used: {why}.", hint="Install the one of driver 570 or newer."
        )
    return CheckpointUtility(Path(found), environment or {}, query_limit_s)
