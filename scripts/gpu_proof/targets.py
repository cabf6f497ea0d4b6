"""Programs that use the GPU while the proof saves and restores them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# No packages at all: one allocation, filled anew each step, and a word from its end printed.
_RAW: Final = """
import ctypes, sys, time
size, steps = int(float(sys.argv[1]) * 2**30), int(sys.argv[2])
cuda = ctypes.CDLL("libcuda.so.1")
def check(result):
    if result: sys.exit(f"CUresult {result}")
context, pointer, word = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint32()
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)))
value = 1
check(cuda.cuMemsetD32_v2(pointer, ctypes.c_uint(value), ctypes.c_size_t(size // 4)))
for step in range(1, steps + 1):
    last = ctypes.c_uint64(pointer.value + size // 4 * 4 - 4)
    check(cuda.cuMemcpyDtoH_v2(ctypes.byref(word), last, ctypes.c_size_t(4)))
    # What is written next comes from the device, so that contents that were lost show for ever after.
    value = (word.value * 1664525 + step) % 2**32
    check(cuda.cuMemsetD32_v2(pointer, ctypes.c_uint(value), ctypes.c_size_t(size // 4)))
    print(step, value, flush=True)
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Target:
    """A program that runs in a session of its own and writes a line a step into `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def wait_lines(self, count: int, limit_s: float) -> bool:
        """Wait for `count` lines; False where they do not come in time."""
        deadline = time.monotonic() + limit_s
        while len(self.lines()) < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def goes_on(self) -> bool:
        """Whether it makes progress within a few seconds."""
        return self.wait_lines(len(self.lines()) + 3, 15)

    def wait_gone(self) -> None:
        """Wait until the program that was started has ended and its pid is free."""
        self.process.wait(30)

    def kill(self) -> None:
        """End the program, restored or not."""
        for number in (signal.SIGKILL, signal.SIGCONT):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return
        if self.process.returncode is None:
            self.process.wait(30)

    def rss_mib(self) -> int:
        """Resident memory of the process now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024

    def gpu_descriptors(self, pid: int | None = None) -> str:
        """Which GPU devices the process has open or mapped, with how often."""
        folder = Path(f"/proc/{pid or self.pid}")
        names = [str(entry.readlink()) for entry in (folder / "fd").iterdir()]
        names += [f"{line.split()[-1]} (mapped)" for line in (folder / "maps").read_text().splitlines()]
        gpu = [name for name in names if name.startswith("/dev/nvidia")]
        return ", ".join(f"{gpu.count(name)} {name}" for name in sorted(set(gpu))) or "none"


def raw_program(gib: float, steps: int = 1_000_000) -> list[str]:
    """The command line of the program without packages."""
    return [sys.executable, "-c", _RAW, str(gib), str(steps)]


def training(steps: int, workers: int = 0) -> list[str] | None:
    """The command line of the PyTorch training run, None where it was not packed."""
    path = os.environ.get("GPU_PROOF_TRAIN")
    return [sys.executable, path, str(steps), str(workers)] if path else None


def start(argv: list[str], folder: Path, *, first_lines: int = 3, limit_s: float = 90) -> Target:
    """Start a program and wait until it is at work. Raises RuntimeError with what it said where it ends before."""
    folder.mkdir(parents=True)
    log = folder / "log"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as out, (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    # Whoever ends it, its pid is free at once.
    threading.Thread(target=process.wait, daemon=True).start()
    target = Target(process, log)
    deadline = time.monotonic() + limit_s
    while len(target.lines()) < first_lines:
        if process.poll() is not None or time.monotonic() > deadline:
            target.kill()
            said = (folder / "errors").read_text(errors="replace").strip()[-300:]
            raise RuntimeError(f"the program did not get to work: status {process.poll()}, {said}")
        time.sleep(0.05)
    return target
