"""The driver's own interface, spoken by a short-lived child process (`ckptctl.cuda.agent`)."""

from __future__ import annotations

import itertools
import json
import os
import queue
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ckptctl
from ckptctl import command
from ckptctl.cuda import guard
from ckptctl.cuda.driver import Action, CudaState, GpuPair
from ckptctl.cuda.results import (
    CudaHelperLost,
    CudaResult,
    CudaUnavailable,
    NotCudaProcess,
    failure,
    process_gone,
    refuse_unable,
)

_LOG_TAIL_BYTES: Final = 2000


class DriverInterface:
    """The checkpoint functions of libcuda; made by `open_interface`."""

    def __init__(self, child: command.Child, channel: socket.socket, log: Path) -> None:
        self._child = child
        self._channel = channel
        self._log = log
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._ended = False
        self._lines = channel.makefile("r", encoding="ascii")
        self.api_version = self._greet()
        self._reader = threading.Thread(target=self._read, name="cuda-agent", daemon=True)
        self._reader.start()

    @property
    def name(self) -> str:
        """What it is, for reports."""
        return "driver interface"

    def state(self, pid: int) -> CudaState:
        """See CheckpointDriver."""
        return CudaState(self._ask(Action.STATE, pid))

    def restore_thread(self, pid: int) -> int | None:
        """See CheckpointDriver."""
        try:
            return self._ask(Action.RESTORE_THREAD, pid)
        except NotCudaProcess:
            return None

    def lock(self, pid: int, timeout_ms: int) -> None:
        """See CheckpointDriver."""
        self._ask(Action.LOCK, pid, timeout_ms=timeout_ms)

    def checkpoint(self, pid: int) -> None:
        """See CheckpointDriver."""
        self._ask(Action.CHECKPOINT, pid)

    def restore(self, pid: int, gpu_map: tuple[GpuPair, ...] = ()) -> None:
        """See CheckpointDriver."""
        self._ask(Action.RESTORE, pid, gpu_map=[[pair.old_uuid, pair.new_uuid] for pair in gpu_map])

    def unlock(self, pid: int) -> None:
        """See CheckpointDriver."""
        self._ask(Action.UNLOCK, pid)

    def close(self) -> None:
        """Close the channel: the agent ends, once what is under way is done."""
        if self._channel.fileno() < 0:
            return
        self._channel.shutdown(socket.SHUT_WR)
        self._reader.join()
        self._child.wait()
        self._child.close()
        self._lines.close()
        self._channel.close()
        self._log.unlink(missing_ok=True)

    def _greet(self) -> int:
        line = self._lines.readline()
        hello = json.loads(line) if line else {"unavailable": f"its helper process did not start: {self._last_words()}"}
        if "unavailable" in hello:
            raise CudaUnavailable(
                f"The CUDA driver interface cannot be used: {hello['unavailable']}.",
                hint="Install NVIDIA's driver 570 or newer, and ckptctl with its extra [cuda].",
            )
        return int(hello["api_version"])

    def _ask(self, action: Action, pid: int, **arguments: object) -> int:
        """Send a request and wait for its answer; the value in it, 0 where there is none."""
        refuse_unable(action, pid)
        answer = self._exchange({"action": action.value, "pid": pid, **arguments})
        if answer is None:
            raise CudaHelperLost(
                f"The process that talks to the CUDA driver ended during {action.value} of process {pid}: "
                f"{self._last_words()}",
                hint="Look into the kernel's log (`dmesg`), then run ckptctl again: it brings the job back to running.",
            )
        result = int(answer["result"])
        if result == CudaResult.SUCCESS:
            return int(answer["value"] or 0)
        if result < 0:
            raise CudaHelperLost(f"CUDA {action.value} of process {pid} could not be asked for: {answer['text']}.")
        if guard.is_gone(pid):
            raise process_gone(action, pid)
        raise failure(action, pid, result)

    def _exchange(self, request: dict[str, object]) -> dict[str, Any] | None:
        number = next(self._numbers)
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._sending:
            if self._ended:
                return None
            self._waiting[number] = answers
            try:
                self._channel.sendall(json.dumps({"id": number, **request}).encode("ascii") + b"\n")
            except OSError:
                return None
        return answers.get()

    def _read(self) -> None:
        """Hand each answer to the thread that waits for it; None to all of them when the agent is gone."""
        try:
            for line in self._lines:
                answer = json.loads(line)
                with self._sending:
                    waiting = self._waiting.pop(answer["id"])
                waiting.put(answer)
        except OSError:
            pass
        with self._sending:
            self._ended = True
            for waiting in self._waiting.values():
                waiting.put(None)
            self._waiting.clear()

    def _last_words(self) -> str:
        said = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{command.describe_status(self._child.wait())} {said}".strip()


def open_interface(environment: Mapping[str, str] | None = None) -> DriverInterface:
    """Start the agent, with `environment` added to ours. Raises CudaUnavailable where the interface cannot be used."""
    ours, theirs = socket.socketpair()
    descriptor, name = tempfile.mkstemp(prefix="ckptctl-cuda-")
    os.close(descriptor)
    log = Path(name)
    try:
        child = command.start(
            (sys.executable, "-P", "-m", "ckptctl.cuda.agent", str(theirs.fileno())),
            output=log,
            environment={"PYTHONPATH": _python_path(), **(environment or {})},
            pass_fds=(theirs.fileno(),),
        )
    finally:
        theirs.close()
    try:
        return DriverInterface(child, ours, log)
    except BaseException:
        ours.close()
        child.wait()
        child.close()
        log.unlink(missing_ok=True)
        raise


def _python_path() -> str:
    """PYTHONPATH for the agent: ckptctl must be found in it wherever this process found it."""
    return os.pathsep.join(
        path for path in (str(Path(ckptctl.__file__).parent.parent), os.environ.get("PYTHONPATH")) if path
    )
