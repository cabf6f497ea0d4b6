"""The GPUs of this machine, as NVIDIA's management library (NVML) describes them.

NVML is asked by a child process (`ckptctl.host.nvml`): the library opens GPU devices in whoever loads it, and a GPU
that fell off the bus can make it wait forever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import ckptctl
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
    descriptor, name = tempfile.mkstemp(prefix="ckptctl-nvml-")
    os.close(descriptor)
    answer = Path(name)
    try:
        return _ask(answer, timeout_s, environment or {})
    finally:
        answer.unlink(missing_ok=True)


def _ask(answer: Path, timeout_s: float, environment: Mapping[str, str]) -> GpuFacts:
    child = command.start(
        (sys.executable, "-P", "-m", "ckptctl.host.nvml"),
        output=answer,
        environment={"PYTHONPATH": _python_path(), **environment},
    )
    deadline = time.monotonic() + timeout_s

    def watch() -> None:
        if time.monotonic() > deadline:
            raise _TooSlow

    try:
        status = child.wait(watch, tick_s=0.01)
    except _TooSlow:
        # It may sit in the driver where no signal reaches it: it is told to end, and not waited for.
        os.kill(child.pid, signal.SIGKILL)
        return GpuFacts(None, (), f"NVIDIA's management library did not answer within {timeout_s:g} s")
    finally:
        child.close()
    said = answer.read_text(errors="replace")
    if status:
        why = f"{command.describe_status(status)}: {said.strip()[-_TAIL_CHARACTERS:]}"
        return GpuFacts(None, (), f"asking NVIDIA's management library failed with {why}")
    # Libraries may warn on the same stream before; the facts are the last line.
    return _from_json(json.loads(said.splitlines()[-1]))


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


def _python_path() -> str:
    """PYTHONPATH for the child: ckptctl must be found in it wherever this process found it."""
    return os.pathsep.join(
        path for path in (str(Path(ckptctl.__file__).parent.parent), os.environ.get("PYTHONPATH")) if path
    )
