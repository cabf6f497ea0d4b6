"""Checks of the driver and of the ways to drive a checkpoint of GPU memory. The GPUs themselves: `cuda_gpus`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from ckptctl.cuda.features import MINIMUM_DRIVER, DriverVersion, Feature, features_of, supports
from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Problem
from ckptctl.preflight.cuda_facts import CudaFacts
from ckptctl.preflight.machine_check import MachineCheck, about, about_both, error, ok, skipped, warning
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.unknown import Unknown

GROUP: Final = "cuda"
_ARM: Final = "aarch64"
_FEATURELESS_BINDINGS: Final = frozenset({"13.0.0", "13.0.1", "13.3.0"})


def of_cuda(facts: Facts) -> CudaFacts | Unknown:
    """The facts about CUDA; where there is no GPU, that is why nothing is known."""
    if isinstance(facts.cuda, Unknown) or facts.cuda.present:
        return facts.cuda
    return Unknown("There is no NVIDIA GPU here.")


def _driver(facts: CudaFacts, machine: Machine) -> Iterator[Problem]:
    version = facts.module or facts.nvml.driver
    if version is None:
        count = f"{facts.hardware} of NVIDIA's GPUs are" if facts.hardware != 1 else "One of NVIDIA's GPUs is"
        yield error(f"{count} on the bus, but NVIDIA's driver is not loaded.", "Load it: modprobe nvidia.")
        return
    driver = DriverVersion.parse(version)
    least = Feature.ARM if machine.architecture == _ARM else Feature.CHECKPOINT
    if not supports(driver, least):
        yield error(
            f"NVIDIA's driver {version} is too old for {least.value}: that needs {MINIMUM_DRIVER[least]} or newer.",
            f"Install driver {MINIMUM_DRIVER[least]} or newer.",
            driver=version,
        )
    else:
        yield ok(f"NVIDIA's driver {version} can save and restore GPU memory.", driver=version)


def _abilities(facts: CudaFacts) -> Iterator[Problem]:
    version = facts.module or facts.nvml.driver
    if version is None or not supports(DriverVersion.parse(version), Feature.CHECKPOINT):
        yield skipped("There is no driver that can save GPU memory.")
        return
    driver = DriverVersion.parse(version)
    seen = len(facts.nvml.gpus)
    if 0 < seen < facts.hardware and not supports(driver, Feature.PARTIAL_VISIBILITY):
        least = MINIMUM_DRIVER[Feature.PARTIAL_VISIBILITY]
        yield error(
            f"Of {facts.hardware} GPUs only {seen} can be seen here: driver {version} cannot save their memory then.",
            f"Install driver {least} or newer, or give the container every GPU.",
            seen=seen,
            hardware=facts.hardware,
        )
        return
    able = features_of(driver)
    lacking = [one for one in Feature if one is not Feature.ARM and one not in able]
    has = " ".join(one.name.lower() for one in able)
    if not lacking:
        yield ok(f"Driver {version} has all that ckptctl can use.", features=has)
        return
    yield ok(
        f"Driver {version} lacks: {'; '.join(f'{one.value} ({MINIMUM_DRIVER[one]})' for one in lacking)}.",
        features=has,
        lacking=" ".join(one.name.lower() for one in lacking),
    )


def _library(facts: CudaFacts) -> Iterator[Problem]:
    data = {"library": facts.library, "version": facts.library_version, "driver": facts.module}
    if facts.library is None:
        yield error(
            "libcuda.so.1 is not here.",
            "Install the driver's CUDA library; in a container, set NVIDIA_DRIVER_CAPABILITIES=compute,utility.",
            **data,
        )
    elif facts.library_version is None or facts.module is None:
        yield ok(f"libcuda is {facts.library}; its version cannot be compared with that of the driver.", **data)
    elif facts.library_version == facts.module:
        yield ok(f"libcuda {facts.library_version} is that of the driver.", **data)
    elif "compat" in PurePath(facts.library).parts or "compat" in facts.library:
        yield warning(
            f"libcuda {facts.library_version} ({facts.library}) is a compatibility package on driver {facts.module}.",
            "Install a driver as new as the library, and remove the package cuda-compat.",
            **data,
        )
    else:
        yield error(
            f"libcuda is {facts.library_version} ({facts.library}), but the loaded driver is {facts.module}.", **data
        )


def _nvml(facts: CudaFacts) -> Iterator[Problem]:
    nvml = facts.nvml
    if nvml.driver is None:
        yield error(f"The GPUs cannot be asked: {nvml.reason or 'no reason is given'}.")
    else:
        count = f"{len(nvml.gpus)} GPUs" if len(nvml.gpus) != 1 else "one GPU"
        yield ok(f"NVIDIA's management library answers for {count}.", driver=nvml.driver, gpus=len(nvml.gpus))


def _interface(facts: CudaFacts) -> Iterator[Problem]:
    data = {"cuda_bindings": facts.bindings, "cuda_checkpoint": facts.utility}
    if facts.bindings is not None and facts.bindings not in _FEATURELESS_BINDINGS:
        if facts.bindings.startswith("12."):
            yield warning(f"cuda-bindings {facts.bindings} cannot restore onto other GPUs.", **data)
        else:
            yield ok(f"cuda-bindings {facts.bindings} drives the checkpoint.", **data)
    elif facts.utility is not None:
        yield ok(f"NVIDIA's utility {facts.utility} drives the checkpoint.", **data)
    elif facts.bindings is not None:
        yield error(f"cuda-bindings {facts.bindings} lacks parts of the restore.", **data)
    else:
        yield error("Neither cuda-bindings nor NVIDIA's utility cuda-checkpoint is installed.", **data)


CHECKS: Final = (
    MachineCheck(
        "cuda-driver",
        GROUP,
        "NVIDIA's driver itself moves GPU memory out of and into a process; older ones cannot.",
        "Install driver 570 or newer.",
        about_both(of_cuda, lambda facts: facts.machine, _driver),
    ),
    MachineCheck(
        "cuda-abilities",
        GROUP,
        "Each branch of the driver has added jobs that can be saved.",
        "Install a newer driver where a job needs it.",
        about(of_cuda, _abilities),
    ),
    MachineCheck(
        "cuda-library",
        GROUP,
        "libcuda and the kernel's driver must be of one version, or no CUDA program starts.",
        "Reboot, or reload the driver, after an upgrade; in a container, restart that.",
        about(of_cuda, _library),
    ),
    MachineCheck(
        "cuda-interface",
        GROUP,
        "The checkpoint is asked of the driver through cuda-bindings, or else by NVIDIA's utility.",
        "Install ckptctl with its extra [cuda] (cuda-bindings 13.0.2 or newer, not 13.3.0), or cuda-checkpoint.",
        about(of_cuda, _interface),
    ),
    MachineCheck(
        "nvml",
        GROUP,
        "Before a restore the free memory of each GPU is asked: a process that runs short of it is lost.",
        "Try nvidia-smi; install nvidia-ml-py and the driver's libnvidia-ml; reboot if a GPU fell off the bus.",
        about(of_cuda, _nvml),
    ),
)
