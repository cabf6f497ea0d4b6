"""What bringing a job back costs: plain `criu restore` from its folder, and `ckptctl restore` of several snapshots.

usage: restore.py [--sizes 256MiB,1GiB,2GiB,4GiB] [--contents floats,training] [--only WAY,...] [--rounds 5]
                  [--cache cold,warm] [--folder DIR] [--json FILE]

Needs root. One process is saved in each way and killed; then each round brings it back from each, in an order that
changes from round to round, and kills it again. Cold: nothing of the snapshot is in the page cache, which is seen to
before. Warm: all of it is. Ratios are those to plain CRIU, medians of the ratios within the rounds.

The time is that of the whole command, at whose end the job runs; from criu leaves out what ckptctl does before it
starts criu and after the job runs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from figures import median, median_ratio
from jobs import Job, holding, possible, reap_orphans, wait
from programs import CKPTCTL, Ended, as_installed, find_criu, run, write_through
from ways import EXPLAINED, PLAIN, offered, ways

from ckptctl.units import format_size, parse_size

_USUAL = {"floats": ("durable", "directory"), "training": ("durable", "fast", "auto", "better")}
_HEADER = f"""\
{"":10}{"whole command":>16}{"from criu":>16}{"peak memory":>13}
{"":10}{"s    ratio":>16}{"s    ratio":>16}"""


class Cache(StrEnum):
    """What of a snapshot is in the page cache when it is restored."""

    COLD = "cold"
    WARM = "warm"


@dataclass(frozen=True, slots=True)
class Restore:
    """One measured restore. `from_criu_s` is the whole time for plain CRIU."""

    contents: str
    size_bytes: int
    way: str
    cache: Cache
    seconds: float
    from_criu_s: float
    peak_bytes: int


# The restores of one round, by way.
Round = dict[str, Restore]


def set_cache(folder: Path, cache: Cache) -> None:
    """Let the page cache hold all of what is in the files of a folder, or nothing; the rest of it is left alone."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                if cache is Cache.WARM:
                    while file.read(1 << 20):
                        pass
                else:
                    # A page that a processor still has in hand stays at first.
                    wait(partial(_is_removed_from_cache, file.fileno()))


def _is_removed_from_cache(descriptor: int) -> bool:
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    size = os.fstat(descriptor).st_size
    return not any(_is_cached(descriptor, offset) for offset in range(0, size, max(size // 16, 1)))


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def bring_back(way: str, criu: Path, snapshot: Path) -> tuple[Ended, float]:
    """Restore from what `way` has saved; what was used, and the time from criu on."""
    if way == PLAIN:
        ended = run([criu, "restore", "--restore-detached", "--images-dir", snapshot, "--log-file", "restore.log"])
        return ended, ended.seconds
    ended = run([CKPTCTL, "restore", snapshot, "--json"])
    timings = {each["name"]: float(each["seconds"]) for each in json.loads(ended.output)["result"]["timings"]}
    return ended, sum(timings[name] for name in ("restore", "look"))


def measure(job: Job, way: str, criu: Path, snapshot: Path) -> tuple[float, float, int]:
    """One restore, as the figures of Restore; the job is gone again afterwards."""
    ended, from_criu_s = bring_back(way, criu, snapshot)
    job.wait_until_it_beats()
    job.end()
    return ended.seconds, from_criu_s, ended.peak_bytes


def save(contents: str, size_bytes: int, names: Sequence[str], folder: Path) -> tuple[Job, dict[str, Path]]:
    """Save one job in each way and end it."""
    snapshots = {name: folder / name for name in names}
    with holding(contents, size_bytes, folder) as job:
        for way in ways(names):
            way.save(job, snapshots[way.name])
            write_through(snapshots[way.name])
    return job, snapshots


def rounds_of(job: Job, snapshots: Mapping[str, Path], kind: tuple[str, int, Cache], count: int) -> list[Round]:
    """Restore `count` times from each snapshot; which comes first changes, and so does the direction."""
    criu, names, rounds = find_criu(), list(snapshots), []
    for number in range(count):
        start = number % len(names)
        order = [*names[start:], *names[:start]]
        taken = {}
        for name in order if number % 2 == 0 else order[::-1]:
            set_cache(snapshots[name], kind[2])
            taken[name] = Restore(kind[0], kind[1], name, kind[2], *measure(job, name, criu, snapshots[name]))
        rounds.append(taken)
    return rounds


def row(way: str, rounds: Sequence[Round]) -> str:
    """The medians of one way."""
    times = ""
    for figure in ("seconds", "from_criu_s"):
        seconds = median(getattr(each[way], figure) for each in rounds)
        ratio = median_ratio((getattr(each[way], figure), getattr(each[PLAIN], figure)) for each in rounds)
        times += f"{seconds:9.3f}{ratio:7.3f}"
    return f"{way:10}{times}{format_size(round(median(each[way].peak_bytes for each in rounds))):>13}"


def report(contents: str, size_bytes: int, names: Sequence[str], caches: Sequence[Cache], count: int) -> list[Round]:
    """Measure and print one kind of memory of one size; snapshots lie in the current folder meanwhile."""
    taken: list[Round] = []
    with tempfile.TemporaryDirectory(dir=".") as name:
        job, snapshots = save(contents, size_bytes, names, Path(name).absolute())
        for cache in caches:
            rounds = rounds_of(job, snapshots, (contents, size_bytes, cache), count)
            print(f"{contents}, {format_size(size_bytes)}, {cache}\n{_HEADER}")
            print("\n".join(row(name, rounds) for name in names), end="\n\n", flush=True)
            taken += rounds
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what bringing a job back costs")
    parser.add_argument("--sizes", default="256MiB,1GiB,2GiB,4GiB")
    parser.add_argument("--contents", default=",".join(_USUAL), help="what is in the memory")
    parser.add_argument("--only", metavar="WAY,...", help="beside plain CRIU; as of dump.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", default=",".join(Cache))
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the snapshots lie")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement there too")
    wanted = parser.parse_args()
    caches = [Cache(each) for each in wanted.cache.split(",")]
    reap_orphans()
    print(f"\nRestores, median of {wanted.rounds} rounds; what was saved by\n")
    only = offered(wanted.only.split(",")) if wanted.only else None
    chosen = {
        contents: (PLAIN, *(only or _USUAL[contents])) for contents in filter(possible, wanted.contents.split(","))
    }
    for way in dict.fromkeys(way for names in chosen.values() for way in names):
        print(f"{way:12}{EXPLAINED[way]}")
    print(flush=True)
    taken: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=wanted.folder) as name:
        os.environ.update(as_installed(Path(name)))
        os.chdir(name)
        for contents, names in chosen.items():
            for size in wanted.sizes.split(","):
                taken += report(contents, parse_size(size), names, caches, wanted.rounds)
        os.chdir("/")
    if wanted.json:
        wanted.json.write_text(json.dumps([[asdict(each) for each in one.values()] for one in taken], indent=2) + "\n")


if __name__ == "__main__":
    main()
