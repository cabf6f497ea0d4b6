"""What NVIDIA's drivers can do, by version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus


class CudaFeatureMissing(CkptctlError):
    """The installed driver is older than what was asked for needs."""

    code = "E_CUDA_FEATURE"
    exit_status = ExitStatus.INCOMPATIBLE


@dataclass(frozen=True, slots=True, order=True)
class DriverVersion:
    """A driver's version; `570.144` and `580.159.04` compare number by number."""

    parts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> DriverVersion:
        """Read the version as NVML and the kernel module give it. Raises ValueError."""
        if not re.fullmatch(r"\d+(\.\d+)*", text.strip()):
            raise ValueError(f"{text!r} is not a driver version")
        return cls(tuple(int(part) for part in text.strip().split(".")))

    def __str__(self) -> str:
        # NVIDIA writes every number after the branch with two digits at least: 575.57.08.
        return ".".join([str(self.parts[0]), *(f"{part:02d}" for part in self.parts[1:])])


class Feature(Enum):
    """Something that not every driver can do; the value says what it is for."""

    CHECKPOINT = "saving and restoring GPU memory"
    PARTIAL_VISIBILITY = "saving GPU memory in a container that sees only some of the machine's GPUs"
    GPU_MAP = "restoring onto other GPUs than those of the dump"
    JOB_FILE = "saving a job whose child processes inherited the GPU, such as forked DataLoader workers"
    ARM = "saving GPU memory on ARM processors"
    IPC = "saving processes that share GPU memory with each other (legacy CUDA IPC)"
    CUSTOM_STORAGE = "saving GPU memory without a copy in the memory of the process"


# Sources: release notes of the drivers and of CUDA 13.0, NVIDIA's answers in the tracker of cuda-checkpoint, cuda.h.
MINIMUM_DRIVER: Final[Mapping[Feature, DriverVersion]] = MappingProxyType(
    {
        Feature.CHECKPOINT: DriverVersion((570,)),
        Feature.PARTIAL_VISIBILITY: DriverVersion((575, 57, 8)),
        Feature.GPU_MAP: DriverVersion((580,)),
        Feature.JOB_FILE: DriverVersion((590,)),
        Feature.ARM: DriverVersion((595,)),
        Feature.IPC: DriverVersion((610,)),
        Feature.CUSTOM_STORAGE: DriverVersion((615,)),
    }
)


def supports(driver: DriverVersion, feature: Feature) -> bool:
    """Whether this driver is new enough for the feature."""
    return driver >= MINIMUM_DRIVER[feature]


def features_of(driver: DriverVersion) -> tuple[Feature, ...]:
    """All that this driver can do, oldest first."""
    return tuple(feature for feature in Feature if supports(driver, feature))


def require(driver: DriverVersion, feature: Feature) -> None:
    """Raise CudaFeatureMissing, which names the feature's purpose and both versions, if the driver is too old."""
    if supports(driver, feature):
        return
    minimum = MINIMUM_DRIVER[feature]
    raise CudaFeatureMissing(
        f"NVIDIA's driver {driver} is too old for {feature.value}: that needs {minimum} or newer.",
        hint=f"Install driver {minimum} or newer on this machine.",
        details={"driver": str(driver), "minimum": str(minimum), "feature": feature.name},
    )
