"""What `ckptctl run` costs a training: steps per second with snapshots at some intervals, without any, and without it.

usage: overhead.py [--seconds 120] [--rounds 3] [--intervals 20s,60s] [--state 256MiB] [--plain] [--folder DIR]
                   [--json FILE]

Needs root. Each round trains once on every side, in an order that changes from round to round; ratios are those to the
training without ckptctl, medians of those within the rounds. The longest step is what the training itself noticed of a
snapshot. Processor time is that of ckptctl and, beside it, of the programs that it ran (criu), per second of training.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ckptctl.units import format_size, parse_duration, parse_size

_HERE = Path(__file__).parent
_CKPTCTL = Path(sys.executable).with_name("ckptctl")
_RUN = "bench"
_WITHOUT = "without ckptctl"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.1
_HEADER = f"""\
{"":18}{"steps/s":>9}{"ratio":>8}{"longest step":>14}{"snapshots":>11}{"ckptctl":>12}{"criu":>12}"""


@dataclass(frozen=True, slots=True)
class Side:
    """A way to run the training: `interval` None without ckptctl, empty without snapshots."""

    name: str
    interval: str | None

    def words(self, training: Sequence[str]) -> list[str]:
        """The command line."""
        if self.interval is None:
            return list(training)
        every = ["--every", self.interval] if self.interval else []
        return [str(_CKPTCTL), "run", "--run", _RUN, *every, "--keep-last", "2", "--", *training]


@dataclass(frozen=True, slots=True)
class Processor:
    """Processor time so far, in seconds: of a process, and of those that it has waited for."""

    own_s: float = 0.0
    waited_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Taken:
    """One training on one side. `ckptctl` and `others`: processor seconds per second of training."""

    side: str
    steps_per_s: float
    longest_s: float
    snapshots: int
    ckptctl: float
    others: float


@dataclass(frozen=True, slots=True)
class Trainings:
    """What is trained, and where."""

    folder: Path
    seconds: float
    state_bytes: int
    plain: bool

    @property
    def result(self) -> Path:
        """What the training writes down."""
        return self.folder / "result.json"

    @property
    def supervision(self) -> Path:
        """What ckptctl writes down of the run."""
        return self.folder / "store" / "runs" / _RUN / "supervision.json"

    def words(self) -> list[str]:
        """The command line of the training."""
        words = [str(_HERE / "training.py"), str(self.result), str(self.seconds), str(self.state_bytes)]
        return [sys.executable, *words, *(["--plain"] if self.plain else [])]

    def train(self, side: Side) -> Taken:
        """Train once on this side; nothing of it is left on the disk."""
        os.sync()  # what earlier snapshots left in memory must not be written in our time
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CKPTCTL_")}
        environment |= {"CKPTCTL_STORE": f"{self.folder}/store", "CKPTCTL_STATE": f"{self.folder}/state"}
        if "CKPTCTL_CRIU" in os.environ:
            environment["CKPTCTL_CRIU"] = os.environ["CKPTCTL_CRIU"]
        errors = self.folder / "errors"
        with errors.open("wb") as log:
            process = subprocess.Popen(
                side.words(self.words()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            used_s, watched_s = self._watch(process)
        except BaseException:
            # SIGTERM: ckptctl ends the job with itself.
            process.terminate()
            process.wait()
            raise
        if process.returncode != 0 or not self.result.exists():
            sys.exit(f"bench: {side.name} ended with {process.returncode}:\n{errors.read_text()[-4000:]}")
        return self._taken(side, used_s, watched_s)

    def _watch(self, process: subprocess.Popen[bytes]) -> tuple[Processor, float]:
        """The processor time that the process used from the first step to its end, and how long that was."""
        began = self.result.with_suffix(".began")
        first, last = None, Processor()
        first_s = last_s = 0.0
        while process.poll() is None:
            time.sleep(_POLL_S)
            used = processor_time(process.pid)
            # At its end the training is waited for too, and its time is none of ckptctl's.
            if used is None or not began.exists() or self.result.exists():
                continue
            last, last_s = used, time.monotonic()
            if first is None:
                first, first_s = last, last_s
        first = first or last
        return Processor(last.own_s - first.own_s, last.waited_for_s - first.waited_for_s), last_s - first_s

    def _taken(self, side: Side, used: Processor, watched_s: float) -> Taken:
        found = json.loads(self.result.read_text())
        snapshots = 0
        if side.interval is not None:
            snapshots = json.loads(self.supervision.read_text())["snapshots_count"]
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with_ckptctl = side.interval is not None and watched_s > 0
        return Taken(
            side=side.name,
            steps_per_s=found["steps"] / found["seconds"],
            longest_s=found["longest_s"],
            snapshots=snapshots,
            ckptctl=used.own_s / watched_s if with_ckptctl else 0.0,
            others=used.waited_for_s / watched_s if with_ckptctl else 0.0,
        )


def processor_time(pid: int) -> Processor | None:
    """What /proc says (proc_pid_stat(5), fields 14 to 17); None where the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    own, waited_for = (sum(int(field) for field in fields[start : start + 2]) for start in (11, 13))
    return None if fields[0] == "Z" else Processor(own / _TICKS_PER_S, waited_for / _TICKS_PER_S)


def rounds_of(sides: Sequence[Side], trainings: Trainings, count: int) -> list[dict[str, Taken]]:
    """Every side once in each round; which comes first changes."""
    rounds = []
    for number in range(count):
        start = number % len(sides)
        order = [*sides[start:], *sides[:start]]
        taken = {}
        for side in order if number % 2 == 0 else reversed(order):
            print(f"round {number + 1} of {count}: {side.name}", file=sys.stderr, flush=True)
            taken[side.name] = trainings.train(side)
        rounds.append(taken)
    return rounds


def row(side: str, rounds: Sequence[dict[str, Taken]]) -> str:
    """The medians of one side."""

    def middle(value: Callable[[Taken], float]) -> float:
        return statistics.median(value(each[side]) for each in rounds)

    ratio = statistics.median(each[side].steps_per_s / each[_WITHOUT].steps_per_s for each in rounds)
    cells = (
        f"{side:18}{middle(lambda one: one.steps_per_s):9.2f}{ratio:8.3f}{middle(lambda one: one.longest_s):12.2f} s"
    )
    if side == _WITHOUT:
        return cells
    own, others = (middle(lambda one: one.ckptctl), middle(lambda one: one.others))
    return f"{cells}{middle(lambda one: one.snapshots):11.0f}{own * 1000:7.1f} ms/s{others * 1000:7.1f} ms/s"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what ckptctl run costs a training")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--intervals", default="20s,60s")
    parser.add_argument("--state", default="256MiB", help="memory of the training's state")
    parser.add_argument("--plain", action="store_true", help="train in plain Python even where PyTorch is installed")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the snapshots go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement there too")
    wanted = parser.parse_args()
    intervals = wanted.intervals.split(",")
    for interval in intervals:
        parse_duration(interval)
    sides = [Side(_WITHOUT, None), Side("no snapshot", ""), *(Side(f"every {each}", each) for each in intervals)]
    state_bytes = parse_size(wanted.state)
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=wanted.folder) as name:
        trainings = Trainings(Path(name), wanted.seconds, state_bytes, wanted.plain)
        rounds = rounds_of(sides, trainings, wanted.rounds)
    print(
        f"\nA training with {format_size(state_bytes)} of state under ckptctl run, "
        f"median of {wanted.rounds} rounds of {wanted.seconds:g} s\n\n{_HEADER}"
    )
    for side in sides:
        print(row(side.name, rounds))
    if wanted.json:
        wanted.json.write_text(json.dumps([[asdict(each) for each in one.values()] for one in rounds], indent=2) + "\n")


if __name__ == "__main__":
    main()
