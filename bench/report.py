"""What `ckptctl.report` costs a training: microseconds per call, and milliseconds for the import.

usage: report.py [--calls 2000] [--rounds 5] [--folder DIR]

Each figure is the median of the rounds. `--folder` names a folder on the file system to be measured; the store's is the
one that counts, as the status file lies there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import ckptctl

_IN_MEMORY = Path("/dev/shm")


def microseconds(call: Callable[[int], None], calls: int, rounds: int) -> float:
    """The median over the rounds of the mean time of one call, which gets the number of the call."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        times.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(times)


def cases(calls: int, rounds: int) -> dict[str, float]:
    """What is reported → microseconds."""
    many: Mapping[str, float] = {f"metric_{number}": number / 7 for number in range(20)}

    def measure(call: Callable[[int], None]) -> float:
        return microseconds(call, calls, rounds)

    return {
        "step": measure(lambda step: ckptctl.report(step=step)),
        "step, epoch, one metric": measure(lambda step: ckptctl.report(step=step, epoch=1, loss=1 / (step + 1))),
        "step, 20 metrics": measure(lambda step: ckptctl.report(step=step, **many)),
    }


def import_ms(rounds: int) -> float:
    """The median time that `import ckptctl` takes in a new Python, with compiled modules at hand."""
    code = "import time; began = time.perf_counter(); import ckptctl; print(time.perf_counter() - began)"
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-") as compiled:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        words, environment = [sys.executable, "-c", code], {**environment, "PYTHONPYCACHEPREFIX": compiled}
        times = [
            float(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds + 1)
        ]
    return statistics.median(times[1:]) * 1000


def main() -> None:
    """Measure on a disk and in memory, and without a place to report to, and print."""
    parser = argparse.ArgumentParser(description="what ckptctl.report costs")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    wanted = parser.parse_args()
    os.environ.pop("RANK", None)
    os.environ.pop("CKPTCTL_STATUS", None)
    idle = microseconds(lambda step: ckptctl.report(step=step), wanted.calls, wanted.rounds)
    print(f"\nckptctl.report, microseconds per call, median of {wanted.rounds} rounds of {wanted.calls} calls\n")
    print(f"{'without CKPTCTL_STATUS':40}{idle:8.2f}")
    for parent in dict.fromkeys((wanted.folder, _IN_MEMORY)):
        with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=parent) as folder:
            os.environ["CKPTCTL_STATUS"] = f"{folder}/job-status.json"
            for name, cost_us in cases(wanted.calls, wanted.rounds).items():
                print(f"{f'{name}, in {parent}':40}{cost_us:8.1f}")
    print(f"{'import ckptctl (milliseconds)':40}{import_ms(wanted.rounds):8.2f}")


if __name__ == "__main__":
    main()
