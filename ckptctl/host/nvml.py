"""Asks NVML for the facts about GPUs and prints them as a line of JSON; run by `ckptctl.host.gpu` as a child."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any


def facts() -> dict[str, Any]:
    """What `ckptctl.host.gpu.GpuFacts` holds, as JSON values."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        return _nothing(f"the package nvidia-ml-py is not usable ({error})")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return _nothing(f"NVIDIA's management library cannot be used ({error})")
    try:
        gpus = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        return {"driver": nvml.nvmlSystemGetDriverVersion(), "gpus": gpus, "reason": None}
    except nvml.NVMLError as error:
        return _nothing(f"NVIDIA's management library failed ({error})")


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    persistence = _unless_lacking(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    mig = _unless_lacking(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return {
        "index": index,
        "uuid": nvml.nvmlDeviceGetUUID(handle),
        "model": nvml.nvmlDeviceGetName(handle),
        "total_bytes": memory.total,
        "free_bytes": memory.free,
        "used_bytes": memory.used,
        "persistence": None if persistence is None else bool(persistence),
        "compute_mode": _unless_lacking(nvml, nvml.nvmlDeviceGetComputeMode, handle),
        "mig": None if mig is None else bool(mig[0]),
        "processes": [
            {"pid": each.pid, "used_bytes": each.usedGpuMemory}
            for each in _unless_lacking(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        ],
    }


def _unless_lacking(nvml: Any, ask: Callable[[Any], Any], handle: Any) -> Any:
    """The answer, None for a property that this GPU or driver does not have."""
    try:
        return ask(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None


def _nothing(reason: str) -> dict[str, Any]:
    return {"driver": None, "gpus": [], "reason": reason}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(facts()))
