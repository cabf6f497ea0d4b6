"""The GPUs of this machine, as NVIDIA's management library (NVML) describes them.

NVML is asked by a child process (`ckptctl.host.nvml`): the library opens GPU devices in whoever loads it, and a GPU
that fell off the bus can make it wait forever.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from ckptctl import command

_TAIL_CHARACTERS: Final = 300


class ComputeMode(IntEnum):
    """Who may use a GPU; the numbers are those of nvmlComputeMode_t."""

    DEFAULT = 0
    EXCLUSIVE_THREAD = 1
    PROHIBITED = 2
    EXCLUSIVE_PROCESS = 3


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a compute context on a GPU.

    `pid` is of the PID namespace of the driver, which is that of the host; `used_bytes` is None where the driver does
    not tell, as inside some containers.
    """

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `index` is that of nvidia-smi, which need not be CUDA's. A property the GPU lacks is None."""

    index: int
    uuid: str
    model: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    persistence: bool | None
    compute_mode: ComputeMode | None
    mig: bool | None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The driver's version (`580.159.04`) and its GPUs; `reason` says why, where there is no driver to ask."""

    driver: str | None
    gpus: tuple[Gpu, ...]
    reason: str | None = None


class _TooSlow(Exception):
    """The child has had its time."""


def read_gpu_facts(*, timeout_s: float = 30.0, environment: Mapping[str, str] | None = None) -> GpuFacts:
    """Ask NVML, with `environment` added to ours; a machine without a driver is a plain fact.

    Raises nothing because a GPU, a driver or a library is missing, broken or silent: `reason` says so.
    """
    child, said = command.start_captured(command.python_module("ckptctl.host.nvml"), environment=environment)
    with said:
        try:
            status = _wait(child, timeout_s)
        finally:
            child.close()
        if status is None:
            return GpuFacts(None, (), f"NVIDIA's management library did not answer within {timeout_s:g} s")
        text = said.read().decode(errors="replace")
    if status:
        why = f"{command.describe_status(status)}: {text.strip()[-_TAIL_CHARACTERS:]}"
        return GpuFacts(None, (), f"asking NVIDIA's management library failed with {why}")
    # Libraries may warn on the same stream before; the facts are the last line.
    return _from_json(json.loads(text.splitlines()[-1]))


def _wait(child: command.Child, timeout_s: float) -> int | None:
    """The status of the child; None when its time is up."""
    deadline = time.monotonic() + timeout_s

    def watch() -> None:
        if time.monotonic() > deadline:
            raise _TooSlow

    try:
        return child.wait(watch, tick_s=0.01)
    except _TooSlow:
        # It may sit in the driver where no signal reaches it: it is told to end, and not waited for.
        os.kill(child.pid, signal.SIGKILL)
        return None


def _from_json(raw: dict[str, Any]) -> GpuFacts:
    return GpuFacts(raw["driver"], tuple(_gpu(each) for each in raw["gpus"]), raw["reason"])


def _gpu(raw: dict[str, Any]) -> Gpu:
    mode = raw["compute_mode"]
    return Gpu(
        index=raw["index"],
        uuid=raw["uuid"],
        model=raw["model"],
        total_bytes=raw["total_bytes"],
        free_bytes=raw["free_bytes"],
        used_bytes=raw["used_bytes"],
        persistence=raw["persistence"],
        compute_mode=None if mode is None else ComputeMode(mode),
        mig=raw["mig"],
        processes=tuple(GpuProcess(each["pid"], each["used_bytes"]) for each in raw["processes"]),
    )
