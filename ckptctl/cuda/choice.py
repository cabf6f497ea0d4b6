"""Which way the CUDA driver is driven, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckptctl.cuda.driver import CheckpointDriver
from ckptctl.cuda.interface import open_interface
from ckptctl.cuda.results import CudaUnavailable
from ckptctl.cuda.utility import QUERY_LIMIT_S, open_utility


@dataclass(frozen=True, slots=True)
class Choice:
    """The driver that was chosen, None where there is none, and the reason in a sentence."""

    driver: CheckpointDriver | None
    reason: str

    def require(self) -> CheckpointDriver:
        """The driver; raises CudaUnavailable with the reason where there is none."""
        if self.driver is None:
            raise CudaUnavailable(
                f"GPU memory cannot be saved or restored on this machine: {self.reason}",
                hint="Install NVIDIA's driver 570 or newer and ckptctl with its extra [cuda] (cuda-bindings), "
                "or NVIDIA's cuda-checkpoint utility.",
            )
        return self.driver


def choose(
    search_path: str, environment: Mapping[str, str] | None = None, query_limit_s: float | None = None
) -> Choice:
    """Choose the driver's own interface, or else the utility in `search_path` (as in $PATH). Close what it returns.

    `environment` is added to that of the programs started. With `query_limit_s` nothing but questions may be asked,
    each for so long at most. Never raises because something is missing; raises CudaSilent where a limit is over.
    """
    try:
        interface = open_interface(environment, query_limit_s)
    except CudaUnavailable as error:
        refusal = error.message
    else:
        return Choice(interface, f"The driver's own interface is there (CUDA API {_dotted(interface.api_version)}).")
    try:
        utility = open_utility(search_path, environment, query_limit_s or QUERY_LIMIT_S)
    except CudaUnavailable as error:
        return Choice(None, f"{refusal} {error.message}")
    return Choice(utility, f"{refusal} NVIDIA's cuda-checkpoint utility is installed.")


def _dotted(api_version: int) -> str:
    """13.0 for 13000, as cuDriverGetVersion counts."""
    return f"{api_version // 1000}.{api_version % 1000 // 10}"
