"""The driver's own calls, without anything of ckptctl in between: what its timings are measured against."""

from __future__ import annotations

import ctypes
import time

STATES = ("running", "locked", "checkpointed", "failed", "checkpointing", "restoring")


class RawDriver:
    """The checkpoint functions of libcuda.so.1 in this process, with every argument structure left out."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def call(self, name: str, *arguments: object) -> tuple[int, float]:
        """Call a function; its result code and the seconds that it took."""
        began = time.monotonic()
        result = int(getattr(self._library, name)(*arguments))
        return result, time.monotonic() - began

    def initialize(self) -> tuple[int, float]:
        return self.call("cuInit", 0)

    def state(self, pid: int) -> str:
        """The state's name, or the result code where there is none."""
        value = ctypes.c_int(-1)
        result, _ = self.call("cuCheckpointProcessGetState", pid, ctypes.byref(value))
        return f"CUresult {result}" if result else STATES[value.value]

    def restore_thread(self, pid: int) -> str:
        value = ctypes.c_int(-1)
        result, _ = self.call("cuCheckpointProcessGetRestoreThreadId", pid, ctypes.byref(value))
        return f"CUresult {result}" if result else str(value.value)

    def act(self, action: str, pid: int) -> tuple[int, float]:
        """Lock (10 s), Checkpoint, Restore or Unlock."""
        arguments = None
        if action == "Lock":
            arguments = (ctypes.c_uint32 * 16)(10_000)
        return self.call(f"cuCheckpointProcess{action}", pid, arguments)
