"""What a job uses of the machine, measured while it runs."""

from __future__ import annotations

from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.process.memory import resident_bytes
from ckptctl.snapshot.services import Services


class Gauges:
    """Measures the tree below a root."""

    def __init__(self, root: ProcessId, services: Services) -> None:
        self._root = root
        self._services = services
        self._without_gpus = False

    def memory_bytes(self) -> int:
        """Resident memory of the tree; what its processes share counts in each."""
        return sum(resident_bytes(process.pid) for process in control.walk(self._root))

    def gpu_bytes(self) -> int | None:
        """Memory of the tree on all GPUs; None where there is no GPU, or the driver does not tell."""
        if self._without_gpus:
            return None
        gpus = self._services.read_gpu_facts().gpus
        # Looking again would cost a process each time, and a machine does not grow a GPU while a job runs.
        self._without_gpus = not gpus
        pids = {process.pid for process in control.walk(self._root)}
        used = [process.used_bytes for gpu in gpus for process in gpu.processes if process.pid in pids]
        return None if self._without_gpus or None in used else sum(size or 0 for size in used)
