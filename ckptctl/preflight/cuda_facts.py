"""What this machine has for CUDA: driver, library, GPUs, and the ways to drive a checkpoint."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.host.gpu import GpuFacts, read_gpu_facts

_NVIDIA_VENDOR: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"
_MODULE_VERSION: Final = re.compile(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", re.MULTILINE)
_FILE_VERSION: Final = re.compile(r"libcuda\.so\.(\d+\.\d+(?:\.\d+)?)$")
_CACHED_LIBRARY: Final = re.compile(rb"/[^\0]*/libcuda\.so\.1(?=\0)")
# proc_pid_comm(5) cuts names at 15 characters: nvidia-cuda-mps-control and nvidia-cuda-mps-server.
_MPS_NAME: Final = "nvidia-cuda-mps"
_FOLDERS: Final = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
)


@dataclass(frozen=True, slots=True)
class CudaFacts:
    """`module` is the version of the kernel's driver (`570.144`), None where none is loaded; `library` the libcuda.so.1
    that programs load, with `library_version` by its file's name.

    `hardware` is how many NVIDIA GPUs are on the bus, `devices` the nodes in /dev. `mps` are the pids of the
    Multi-Process Service. `utility` is cuda-checkpoint, `bindings` the version of cuda-bindings, None without.
    """

    module: str | None
    library: str | None
    library_version: str | None
    hardware: int
    devices: tuple[str, ...]
    nvml: GpuFacts
    mps: tuple[int, ...]
    utility: str | None
    bindings: str | None

    @property
    def present(self) -> bool:
        """Whether there is a GPU of NVIDIA. Nodes in /dev alone are none: images of containers hold them too."""
        return bool(self.module or self.hardware or self.nvml.driver)


def read_cuda(environment: Mapping[str, str], limit_s: float, root: Path = Path("/")) -> CudaFacts:
    """Gather them. No CUDA library is loaded: that would open the GPUs in this process."""
    library = next(_libraries(environment, root), None)
    loader = {name: environment[name] for name in ("LD_LIBRARY_PATH",) if name in environment}
    return CudaFacts(
        module=module_version(_text(root / "proc/driver/nvidia/version")),
        library=None if library is None else str(library),
        library_version=None if library is None else _file_version(library),
        hardware=_hardware(root / "sys/bus/pci/devices"),
        devices=tuple(sorted(path.name for path in (root / "dev").glob("nvidia*") if not path.is_dir())),
        nvml=read_gpu_facts(timeout_s=limit_s, environment=loader),
        mps=tuple(_mps(root / "proc")),
        utility=shutil.which("cuda-checkpoint", path=environment.get("PATH", os.defpath)),
        bindings=_bindings(),
    )


def module_version(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version, of the open and of the closed module."""
    found = _MODULE_VERSION.search(text)
    return found[1] if found else None


def _libraries(environment: Mapping[str, str], root: Path) -> Iterator[Path]:
    """In the order of the dynamic loader (ld.so(8)): LD_LIBRARY_PATH, its cache, the folders."""
    named = [folder for folder in environment.get("LD_LIBRARY_PATH", "").split(":") if folder]
    cache = root / "etc/ld.so.cache"
    cached = _CACHED_LIBRARY.findall(cache.read_bytes()) if cache.is_file() else []
    candidates = (
        *(Path(folder, "libcuda.so.1") for folder in named),
        *(root / os.fsdecode(path).lstrip("/") for path in cached),
        *(root / folder / "libcuda.so.1" for folder in _FOLDERS),
    )
    yield from (path for path in candidates if path.exists())


def _file_version(library: Path) -> str | None:
    found = _FILE_VERSION.search(library.resolve().name)
    return found[1] if found else None


def _hardware(devices: Path) -> int:
    """Display controllers of NVIDIA: its audio and bridge functions do not count."""
    return sum(
        _text(device / "vendor") == _NVIDIA_VENDOR and _text(device / "class").startswith(_DISPLAY_CLASS)
        for device in devices.glob("*")
    )


def _mps(proc: Path) -> Iterator[int]:
    for entry in proc.iterdir():
        if entry.name.isdigit() and _text(entry / "comm") == _MPS_NAME:
            yield int(entry.name)


def _bindings() -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version("cuda-bindings")
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
