"""The driver's own interface, spoken by a short-lived child process (`ckptctl.cuda.agent`)."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

from ckptctl import command
from ckptctl.cuda import guard
from ckptctl.cuda.driver import Action, CudaState, GpuPair
from ckptctl.cuda.results import (
    CudaError,
    CudaHelperLost,
    CudaResult,
    CudaSilent,
    CudaUnavailable,
    NotCudaProcess,
    failure,
    process_gone,
    refuse_unable,
)

_LOG_TAIL_BYTES: Final = 2000
_SILENT_HINT: Final = "See whether `nvidia-smi` answers, and what the kernel's log says (`dmesg`); a reboot may help."
_QUESTIONS: Final = frozenset({Action.STATE, Action.RESTORE_THREAD})


class DriverInterface:
    """The checkpoint functions of libcuda; made by `open_interface`.

    With `query_limit_s` nothing but questions may be asked: one that is not answered in time raises CudaSilent, and the
    agent is then killed when it is closed, which would be no way to end an action.

    Should the agent be killed, by the kernel for want of memory, say, then the calls under way raise CudaHelperLost,
    and the next one starts another agent.
    """

    def __init__(self, environment: Mapping[str, str], query_limit_s: float | None = None) -> None:
        self._environment = environment
        self._query_limit_s = query_limit_s
        self._replacing = threading.Lock()
        self._agent = _Agent(environment, query_limit_s)

    @property
    def name(self) -> str:
        """What it is, for reports."""
        return "driver interface"

    @property
    def api_version(self) -> int:
        """The CUDA version of the driver as cuDriverGetVersion counts: 13000 for 13.0."""
        return self._agent.api_version

    def state(self, pid: int) -> CudaState:
        """See CheckpointDriver."""
        number = self._ask(Action.STATE, pid)
        try:
            return CudaState(number)
        except ValueError:
            raise CudaError(
                f"The driver reports a state of process {pid} not known here: {number}.",
                hint="This driver is newer than ckptctl knows: use a newer ckptctl.",
            ) from None

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
        """End the agent, once what is under way in it is done."""
        self._agent.close()

    def _ask(self, action: Action, pid: int, **arguments: object) -> int:
        """Send a request and wait for its answer; the value in it, 0 where there is none."""
        assert self._query_limit_s is None or action in _QUESTIONS
        refuse_unable(action, pid)
        agent = self._living_agent()
        answer = agent.exchange({"action": action.value, "pid": pid, **arguments})
        if answer is None:
            raise CudaHelperLost(
                f"The process that talks to the CUDA driver ended during {action.value} of process {pid}: "
                f"{agent.epitaph}.",
                hint="Look into the kernel's log (`dmesg`), then run ckptctl again: it brings the job back to running.",
            )
        result = int(answer["result"])
        if result == CudaResult.SUCCESS:
            return int(answer["value"] or 0)
        if result < 0:
            raise CudaHelperLost(
                f"CUDA {action.value} of process {pid} could not be asked for: {answer['text']}.",
                hint="The driver or cuda-bindings lacks what ckptctl needs: install newer ones, then run it again.",
            )
        if guard.is_gone(pid):
            raise process_gone(action, pid)
        raise failure(action, pid, result)

    def _living_agent(self) -> _Agent:
        with self._replacing:
            if self._agent.ended:
                self._agent.close()
                self._agent = _Agent(self._environment, self._query_limit_s)
            return self._agent


class _Agent:
    """A running agent and the threads that wait for its answers. Raises CudaUnavailable when it finds no driver."""

    def __init__(self, environment: Mapping[str, str], limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._silent = False
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._closed = False
        self.ended = False
        self.epitaph = ""
        self._child, self._said, self._channel = _start(environment)
        self._lines = self._channel.makefile("r", encoding="ascii")
        self._reader = threading.Thread(target=self._read, name="cuda-agent", daemon=True)
        try:
            self.api_version = self._greet()
        except BaseException:
            self._reader.start()
            self.close()
            raise
        self._reader.start()

    def exchange(self, request: dict[str, object]) -> dict[str, Any] | None:
        """The answer to a request; None if the agent ended before it gave one. Raises CudaSilent."""
        number = next(self._numbers)
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._sending:
            if self.ended:
                return None
            self._waiting[number] = answers
            try:
                self._channel.sendall(json.dumps({"id": number, **request}).encode("ascii") + b"\n")
            except OSError:
                return None
        try:
            return answers.get(timeout=self._limit_s)
        except queue.Empty:
            self._silent = True
            about = f"about process {request['pid']} "
            raise CudaSilent(
                f"The CUDA driver did not answer {about}within {self._limit_s:g} s.", hint=_SILENT_HINT
            ) from None

    def close(self) -> None:
        """Hang up, and wait until the agent has ended, unless it is silent; may be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._silent:
            # It may sit in the driver where no signal reaches it: it is told to end, and not waited for.
            os.kill(self._child.pid, signal.SIGKILL)
            return
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._reader.join()
        self._child.wait()
        self._child.close()
        self._lines.close()
        self._channel.close()
        self._said.close()

    def _greet(self) -> int:
        line = self._first_line()
        hello = json.loads(line) if line else {"unavailable": f"its helper did not start: {self._describe_end()}"}
        if "unavailable" in hello:
            raise CudaUnavailable(
                f"The CUDA driver interface cannot be used: {hello['unavailable']}.",
                hint="Install NVIDIA's driver 570 or newer, and ckptctl with its extra [cuda].",
            )
        return int(hello["api_version"])

    def _first_line(self) -> str:
        self._channel.settimeout(self._limit_s)
        try:
            line = self._lines.readline()
        except TimeoutError:
            self._silent = True
            raise CudaSilent(
                f"The CUDA driver's library did not start within {self._limit_s:g} s.", hint=_SILENT_HINT
            ) from None
        self._channel.settimeout(None)
        return line

    def _read(self) -> None:
        """Hand each answer to the thread that waits for it; None to all of them when the agent is gone."""
        # The last line of an agent that was killed may be cut off: that is its end, too.
        with suppress(OSError, ValueError):
            for line in self._lines:
                answer = json.loads(line)
                with self._sending:
                    waiting = self._waiting.pop(answer["id"])
                waiting.put(answer)
        epitaph = self._describe_end()
        with self._sending:
            self.ended = True
            self.epitaph = epitaph
            for waiting in self._waiting.values():
                waiting.put(None)
            self._waiting.clear()

    def _describe_end(self) -> str:
        """Wait until the agent has ended; how it did, and the end of what it wrote."""
        status = self._child.wait()
        said = self._said.read()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{command.describe_status(status)} {said}".strip()


def open_interface(environment: Mapping[str, str] | None = None, query_limit_s: float | None = None) -> DriverInterface:
    """Start an agent, with `environment` added to ours; see `DriverInterface`.

    Raises CudaUnavailable where the interface cannot be used, CudaSilent where it does not answer in time.
    """
    return DriverInterface(environment or {}, query_limit_s)


def _start(environment: Mapping[str, str]) -> tuple[command.Child, BinaryIO, socket.socket]:
    """The agent, what it writes besides answers, and our end of its channel."""
    ours, theirs = socket.socketpair()
    argv = command.python_module("ckptctl.cuda.agent", str(theirs.fileno()))
    try:
        child, said = command.start_captured(argv, environment=environment, pass_fds=(theirs.fileno(),))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return child, said, ours
