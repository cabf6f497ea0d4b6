"""What `ckptctl dump --leave-running` costs beside plain `criu dump --leave-running` made durable, in turn.

usage: dump.py [--sizes 256MiB,1GiB,2GiB] [--rounds 5] [--images stream,directory] [--folder DIR] [--json FILE]

Needs root. Each round dumps one and the same process with all of them, in changing order, to the same disk, and
nothing is left out. Durable time is from the start of the command until all is fsynced, and beside it from the freeze;
the pause is the longest time for which the process stood still, as it noticed itself. Ratios are medians of the ratios
within the rounds.
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ckptctl.units import format_size, parse_size

_HERE = Path(__file__).parent
_CKPTCTL = Path(sys.executable).with_name("ckptctl")
# CRIU lets a process run on before it is done; the gap is over when the process has beaten again.
_SETTLE_S = 0.05
_HEADER = """\
                      durable                                           pause
   memory  images         criu   ckptctl  ratio  from freeze  ratio      criu   ckptctl  ratio"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running holder.py."""

    pid: int
    heartbeats: int  # an address in its memory

    def longest_pause_s(self, since_ns: int) -> float:
        """The longest time between two heartbeats of which the later one came after `since_ns`."""
        with open(f"/proc/{self.pid}/mem", "rb") as file:
            file.seek(self.heartbeats)
            count = int.from_bytes(file.read(8), "little")
            times = array.array("Q")
            times.frombytes(file.read(8 * count))
        return max(later - earlier for earlier, later in itertools.pairwise(times) if later > since_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Dump:
    """One measured dump.

    `from_freeze_s` leaves out what comes before the freeze: start-up and the look at the job. CRIU by itself has next
    to nothing of that, so there it is the whole time.
    """

    durable_s: float
    pause_s: float
    from_freeze_s: float
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Round:
    """The same process dumped by both; `images` is what ckptctl was told to make of its memory."""

    size_bytes: int
    images: str
    plain: Dump
    ckptctl: Dump


@contextmanager
def holding(size_bytes: int, folder: Path) -> Iterator[Holder]:
    """A process with `size_bytes` of memory, killed at the end of the block."""
    output = folder / "holder.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, _HERE / "holder.py", str(size_bytes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while (ready := re.search(r"^ready (\d+)\n", output.read_text())) is None:
            if process.poll() is not None:
                sys.exit(f"bench: the process to dump ended: {output.read_text()}")
            time.sleep(0.05)
        yield Holder(process.pid, int(ready[1]))
    finally:
        process.kill()
        process.wait()


def dump_plainly(criu: Path, holder: Holder, target: Path) -> None:
    """`criu dump`, then fsync of every file and of the folder."""
    target.mkdir()
    run([criu, "dump", "--leave-running", "--tree", str(holder.pid), "--images-dir", target, "--log-file", "dump.log"])
    for path in [*target.iterdir(), target]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def dump_with_ckptctl(holder: Holder, images: str, target: Path) -> str:
    """`ckptctl dump`, which returns when all is durable; its JSON report."""
    words = ["--pid", str(holder.pid), "--leave-running", "--images", images, "--json"]
    return run([_CKPTCTL, "dump", "--to", target, *words])


def measure(program: Path | str, holder: Holder, target: Path) -> Dump:
    """One dump by plain CRIU (its path), or by ckptctl (a form of images); the images are removed afterwards."""
    os.sync()  # what earlier dumps left in memory must not be written in our time
    began_ns = time.monotonic_ns()
    if isinstance(program, Path):
        dump_plainly(program, holder, target)
        report = None
    else:
        report = dump_with_ckptctl(holder, program, target)
    durable_s = (time.monotonic_ns() - began_ns) / 1e9
    time.sleep(_SETTLE_S)
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    shutil.rmtree(target)
    from_freeze_s = durable_s if report is None else seconds_from_freeze(report)
    return Dump(durable_s, holder.longest_pause_s(began_ns), from_freeze_s, written)


def seconds_from_freeze(report: str) -> float:
    """The time from the freeze to durable in a report of ckptctl."""
    timings = {each["name"]: float(each["seconds"]) for each in json.loads(report)["result"]["timings"]}
    return sum(timings[name] for name in ("freeze", "describe", "commit"))


def run(words: Sequence[str | Path]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def find_criu() -> Path:
    """The CRIU that ckptctl takes too."""
    said = run([_HERE.parent / "scripts" / "install-criu", "--check"])
    found = re.search(r" is ready: (.*) \(from ", said)
    return Path(found[1]) if found else sys.exit("bench: no CRIU")


def rounds_of(size_bytes: int, count: int, programs: Sequence[Path | str], folder: Path) -> Iterator[Round]:
    """Dump one process `count` times with each, the first of which is CRIU, in the reverse order every second time."""
    criu, *forms = programs
    with holding(size_bytes, folder) as holder:
        for number in range(count):
            order = programs if number % 2 == 0 else programs[::-1]
            taken = {program: measure(program, holder, folder / "snapshot") for program in order}
            yield from (Round(size_bytes, str(form), taken[criu], taken[form]) for form in forms)


def row(rounds: Sequence[Round]) -> str:
    """The medians of the rounds of one size."""

    def middle(value: Callable[[Round], float]) -> float:
        return statistics.median(value(each) for each in rounds)

    cells = [
        f"{format_size(rounds[0].size_bytes):>9}",
        f"{rounds[0].images:9}",
        f"{middle(lambda each: each.plain.durable_s):8.3f}",
        f"{middle(lambda each: each.ckptctl.durable_s):8.3f}",
        f"{middle(lambda each: each.ckptctl.durable_s / each.plain.durable_s):5.3f}",
        f"{middle(lambda each: each.ckptctl.from_freeze_s):11.3f}",
        f"{middle(lambda each: each.ckptctl.from_freeze_s / each.plain.from_freeze_s):5.3f}",
        f"{middle(lambda each: each.plain.pause_s):8.3f}",
        f"{middle(lambda each: each.ckptctl.pause_s):8.3f}",
        f"{middle(lambda each: each.ckptctl.pause_s / each.plain.pause_s):5.3f}",
    ]
    return "  ".join(cells)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="ckptctl dump beside plain criu dump made durable")
    parser.add_argument("--sizes", default="256MiB,1GiB,2GiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", default="stream,directory", help="what ckptctl is told to make of the memory")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to dump to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement there too")
    wanted = parser.parse_args()
    programs: list[Path | str] = [find_criu(), *wanted.images.split(",")]
    print(f"\nDumps of a process that runs on, median of {wanted.rounds} rounds, seconds\n")
    print(_HEADER)
    taken: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=wanted.folder) as name:
        folder = Path(name)
        os.environ["CKPTCTL_STATE"] = str(folder / "state")
        list(rounds_of(16 << 20, 1, programs, folder))  # so that no program is read from the disk for the first time
        for size in wanted.sizes.split(","):
            rounds = list(rounds_of(parse_size(size), wanted.rounds, programs, folder))
            for form in programs[1:]:
                print(row([each for each in rounds if each.images == form]), flush=True)
            taken += rounds
    if wanted.json:
        wanted.json.write_text(json.dumps([asdict(each) for each in taken], indent=2) + "\n")


if __name__ == "__main__":
    main()
