"""The child process that talks to the CUDA driver, so that ckptctl itself never holds driver state.

usage: python -m ckptctl.cuda.agent DESCRIPTOR

DESCRIPTOR is a stream socket. The agent first says what it found, then answers requests, each side in lines of JSON:
  hello    {"api_version": 13000} or {"unavailable": "why"}
  request  {"id": 1, "action": "lock", "pid": 4711, "timeout_ms": 30000, "gpu_map": [["GPU-...", "GPU-..."]]}
  answer   {"id": 1, "result": 0, "value": null, "seconds": 0.003, "step": "lock"}
Each request runs in a thread of its own. `result` is a CUresult, -1 where this process failed before asking the driver
(`text` then says why). When the other side goes away, what is under way is brought to its end first.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from typing import Any, Final

from ckptctl.cuda import guard

NEEDED: Final = ("GetState", "GetRestoreThreadId", "Lock", "Checkpoint", "Restore", "Unlock")
# cuGetProcAddress is asked for the functions as of CUDA 12.8, the first with all six.
_ASKED_VERSION: Final = 12080
_NOT_READY: Final = 600


class Agent:
    """Carries out requests on the driver interface `cuda.bindings.driver`."""

    def __init__(self, driver: Any, channel: socket.socket) -> None:
        self._driver = driver
        self._channel = channel
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._started = False

    def serve(self) -> None:
        """Answer requests until the other side closes; then wait for what is under way."""
        threads: list[threading.Thread] = []
        with self._channel.makefile("r", encoding="ascii") as requests:
            for line in requests:
                thread = threading.Thread(target=self._answer, args=(json.loads(line),))
                thread.start()
                threads = [other for other in threads if other.is_alive()] + [thread]
        for thread in threads:
            thread.join()

    def say(self, message: dict[str, Any]) -> None:
        """Send one line; nobody may be listening any more."""
        try:
            with self._sending:
                self._channel.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError:
            pass

    def _answer(self, request: dict[str, Any]) -> None:
        began = time.monotonic()
        answer: dict[str, Any] = {"id": request["id"], "value": None}
        try:
            answer |= self._carry_out(request)
        except Exception as error:
            answer |= {"result": -1, "text": f"{type(error).__name__}: {error}"}
        self.say(answer | {"seconds": time.monotonic() - began})

    def _carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        action, pid = request["action"], request["pid"]
        if action == "state":
            return self._ask(self._driver.cuCheckpointProcessGetState, pid)
        if action == "restore thread":
            return self._ask(self._driver.cuCheckpointProcessGetRestoreThreadId, pid)
        try:
            held = guard.take(pid, request["timeout_ms"] / 1000 if action == "lock" else None)
        except TimeoutError:
            return {"result": _NOT_READY}
        try:
            return self._change(action, pid, request)
        finally:
            if held is not None:
                os.close(held)

    def _change(self, action: str, pid: int, request: dict[str, Any]) -> dict[str, Any]:
        if action == "lock":
            arguments = self._driver.CUcheckpointLockArgs()
            arguments.timeoutMs = request["timeout_ms"]
            return self._ask(self._driver.cuCheckpointProcessLock, pid, arguments)
        if action == "checkpoint":
            return self._ask(self._driver.cuCheckpointProcessCheckpoint, pid, None)
        if action == "unlock":
            return self._ask(self._driver.cuCheckpointProcessUnlock, pid, None)
        return self._restore(pid, request["gpu_map"])

    def _restore(self, pid: int, gpu_map: list[list[str]]) -> dict[str, Any]:
        result = self._start_driver()
        if result:
            return {"result": result, "step": "cuInit"}
        arguments = None
        if gpu_map:
            arguments = self._driver.CUcheckpointRestoreArgs()
            arguments.gpuPairs = [self._pair(old, new) for old, new in gpu_map]
            arguments.gpuPairsCount = len(gpu_map)
        return self._ask(self._driver.cuCheckpointProcessRestore, pid, arguments)

    def _start_driver(self) -> int:
        """Initialize the driver in this process: a restore needs that unless the GPU is in persistence mode."""
        with self._starting:
            if self._started:
                return 0
            result = int(self._driver.cuInit(0)[0])
            self._started = result == 0
            return result

    def _pair(self, old: str, new: str) -> Any:
        pair = self._driver.CUcheckpointGpuPair()
        pair.oldUuid, pair.newUuid = self._uuid(old), self._uuid(new)
        return pair

    def _uuid(self, text: str) -> Any:
        value = self._driver.CUuuid()
        # The binding lets nobody set its `bytes`; the 16 bytes of the structure itself can be written.
        ctypes.memmove(value.getPtr(), uuid.UUID(text.removeprefix("GPU-")).bytes, 16)
        return value

    @staticmethod
    def _ask(function: Any, *arguments: Any) -> dict[str, Any]:
        result, *values = function(*arguments)
        succeeded = int(result) == 0
        return {"result": int(result), "value": int(values[0]) if values and succeeded else None}


def find_driver() -> tuple[Any, dict[str, Any]]:
    """The binding module, and what to say first: its version, or why the interface cannot be used."""
    try:
        driver: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        return None, {"unavailable": f"the package cuda-bindings is not usable ({error})"}
    try:
        for name in NEEDED:
            if not hasattr(driver, f"cuCheckpointProcess{name}"):
                return None, {"unavailable": f"this release of cuda-bindings lacks cuCheckpointProcess{name}"}
            result, _, _ = driver.cuGetProcAddress(f"cuCheckpointProcess{name}".encode(), _ASKED_VERSION, 0)
            if int(result):
                return None, {"unavailable": "the driver is older than 570: it has no checkpoint interface"}
        result, version = driver.cuDriverGetVersion()
    except RuntimeError as error:
        return None, {"unavailable": f"the driver library libcuda.so.1 cannot be used ({error})"}
    return driver, {"api_version": int(version)}


def main(descriptor: int) -> int:
    """Serve the socket `descriptor` to its end; the exit status is 0 whatever was answered."""
    # A service manager signals the whole group when it stops ckptctl; an operation must not end half-way for that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=descriptor)
    driver, hello = find_driver()
    agent = Agent(driver, channel)
    agent.say(hello)
    if driver is not None:
        agent.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
