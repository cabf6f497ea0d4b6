"""What saving a job that runs on costs, in several ways: plain `criu dump` made durable, and ckptctl's, in turn.

usage: dump.py [--sizes 256MiB,1GiB,2GiB,4GiB] [--contents floats,training,frozen,zeros] [--only WAY,...] [--rounds 5]
               [--folder DIR] [--json FILE]

Needs root. Each round saves one and the same process in all ways, to the same disk, in an order that changes from round
to round, and nothing is left out. Ratios are those to plain CRIU, medians of the ratios within the rounds.

Durable is from the start of the command until all is fsynced; from freeze leaves out what ckptctl does before, while
the job runs; the pause is the longest time for which the process stood still, as it noticed itself; written is what
came to the disk. Through three sizes and more a line is laid (least squares): what a dump costs at all, and for a GiB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import line, median, median_ratio
from jobs import CONTENTS, Job, holding, possible
from programs import as_installed
from ways import DIRECT, EXPLAINED, PLAIN, SECOND, Way, bytes_on_disk, inodes, offered, ways

from ckptctl.units import format_size, parse_size

# CRIU lets a process run on before it is done; the gap is over when the process has beaten again.
_SETTLE_S = 0.05
# What is of interest where nothing is asked for.
_USUAL = {
    "floats": ("durable", "pause", "directory", "tmpfs", "tar-zstd", DIRECT),
    "training": ("durable", "pause", SECOND, "fast", "auto", "better"),
    "frozen": ("durable", SECOND),
    "zeros": ("durable", "pause", "fast"),
}
_HEADER = f"""\
{"":10}{"durable":>16}{"from freeze":>16}{"pause":>16}{"written":>18}{"peak memory":>13}
{"":10}{"s    ratio":>16}{"s    ratio":>16}{"s    ratio":>16}{"ratio":>18}"""


@dataclass(frozen=True, slots=True)
class Dump:
    """One measured dump. `from_freeze_s` is the whole time for plain CRIU, which does next to nothing before."""

    contents: str
    size_bytes: int
    way: str
    durable_s: float
    from_freeze_s: float
    pause_s: float
    written_bytes: int
    peak_bytes: int


# The dumps of one round, by way.
Round = dict[str, Dump]


def measure(way: Way, job: Job, target: Path) -> tuple[float, float, float, int, int]:
    """One dump, as the figures of Dump; what it left is removed."""
    way.prepare(job, target)
    before = inodes(target)
    os.sync()  # what earlier dumps left in memory must not be written in our time
    began_ns = time.monotonic_ns()
    told = way.save(job, target)
    durable_s = (time.monotonic_ns() - began_ns) / 1e9
    time.sleep(_SETTLE_S)
    written = bytes_on_disk(target, before)
    shutil.rmtree(target)
    return durable_s, durable_s - told.before_freeze_s, job.longest_pause_s(began_ns), written, told.peak_bytes


def rounds_of(contents: str, size_bytes: int, count: int, chosen: Sequence[Way], folder: Path) -> Iterator[Round]:
    """Save one process `count` times in each way; which comes first changes, and so does the direction."""
    with holding(contents, size_bytes, folder) as job:
        for number in range(count):
            start = number % len(chosen)
            order = [*chosen[start:], *chosen[:start]]
            taken = {}
            for way in order if number % 2 == 0 else order[::-1]:
                taken[way.name] = Dump(contents, size_bytes, way.name, *measure(way, job, folder / "snapshot"))
            yield taken


def row(way: str, rounds: Sequence[Round]) -> str:
    """The medians of one way."""
    durable, freeze, pause, written = (
        (
            median(getattr(each[way], figure) for each in rounds),
            median_ratio((getattr(each[way], figure), getattr(each[PLAIN], figure)) for each in rounds),
        )
        for figure in ("durable_s", "from_freeze_s", "pause_s", "written_bytes")
    )
    times = "".join(f"{seconds:9.3f}{ratio:7.3f}" for seconds, ratio in (durable, freeze, pause))
    peak = format_size(round(median(each[way].peak_bytes for each in rounds)))
    return f"{way:10}{times}{format_size(round(written[0])):>11}{written[1]:7.3f}{peak:>13}"


def lines(way: str, rounds: Sequence[Round]) -> str:
    """What a dump costs at all and for a GiB."""
    found = []
    for figure in ("durable_s", "from_freeze_s", "pause_s"):
        at_all_s, each_gib_s = line(
            (size / (1 << 30), median(getattr(one[way], figure) for one in rounds if one[way].size_bytes == size))
            for size in {one[way].size_bytes for one in rounds}
        )
        found.append(f"{at_all_s:7.3f} + {each_gib_s:.3f}")
    return f"{way:10}{''.join(f'{one:>20}' for one in found)}"


def report(contents: str, sizes: Sequence[int], count: int, chosen: Sequence[Way], folder: Path) -> list[Round]:
    """Measure and print one kind of memory, in several sizes."""
    taken: list[Round] = []
    for size_bytes in sizes:
        rounds = list(rounds_of(contents, size_bytes, count, chosen, folder))
        print(f"{contents}, {format_size(size_bytes)}\n{_HEADER}")
        print("\n".join(row(way.name, rounds) for way in chosen), end="\n\n", flush=True)
        taken += rounds
    if len(sizes) >= 3:
        head = "".join(f"{name:>20}" for name in ("durable", "from freeze", "pause"))
        print(f"{contents}, seconds at all + for each GiB\n{'':10}{head}")
        print("\n".join(lines(way.name, taken) for way in chosen), end="\n\n", flush=True)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what saving a job costs, in several ways")
    parser.add_argument("--sizes", default="256MiB,1GiB,2GiB,4GiB")
    parser.add_argument("--contents", default=",".join(CONTENTS), help="what is in the memory")
    parser.add_argument("--only", metavar="WAY,...", help=f"beside plain CRIU; there are {', '.join(EXPLAINED)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to dump to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement there too")
    wanted = parser.parse_args()
    sizes = [parse_size(size) for size in wanted.sizes.split(",")]
    print(f"\nDumps of a process that runs on, median of {wanted.rounds} rounds\n")
    usual = dict.fromkeys(itertools.chain.from_iterable(_USUAL.values()))
    offered_here = offered(wanted.only.split(",") if wanted.only else list(usual))
    named = {
        contents: [name for name in offered_here if wanted.only or name in _USUAL[contents]]
        for contents in filter(possible, wanted.contents.split(","))
    }
    for name in (PLAIN, *offered_here):
        print(f"{name:12}{EXPLAINED[name]}")
    print(flush=True)
    taken: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=wanted.folder) as name:
        folder = Path(name)
        os.environ.update(as_installed(folder))
        for contents, names in named.items():
            chosen = ways([PLAIN, *names])
            # So that no program is read from the disk for the first time.
            list(rounds_of("floats", 16 << 20, 1, chosen, folder))
            taken += report(contents, sizes, wanted.rounds, chosen, folder)
    if wanted.json:
        wanted.json.write_text(json.dumps([[asdict(each) for each in one.values()] for one in taken], indent=2) + "\n")


if __name__ == "__main__":
    main()
