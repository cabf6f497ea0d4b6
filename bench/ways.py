"""The ways to save a job that are compared: plain CRIU made durable, what one would do with that, and ckptctl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from jobs import Job
from programs import CKPTCTL, Ended, find_criu, offers_direct_io, run, write_through

PLAIN: Final = "plain"
DIRECT: Final = "criu-direct"
SECOND: Final = "second"
_DIRECT_IO: Final = ("--image-io-mode", "direct")
_IN_MEMORY: Final = "/dev/shm"
_DURABLE: Final = ("--aim", "durable")
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "default": (),
    "durable": _DURABLE,
    "pause": ("--aim", "pause"),
    "fast": (*_DURABLE, "--compress", "fast"),
    "auto": (*_DURABLE, "--compress", "auto"),
    "better": (*_DURABLE, "--compress", "better"),
    "directory": ("--images", "directory"),
}
EXPLAINED: Final = {
    PLAIN: "criu dump, then fsync of every file",
    DIRECT: f"criu dump {' '.join(_DIRECT_IO)}, then fsync of every file",
    "tmpfs": f"criu dump to {_IN_MEMORY}, then a copy to the disk and fsync",
    "tar-zstd": "criu dump to the disk, then tar | zstd -3 -T0 to the disk and fsync",
    **{name: " ".join(("ckptctl dump", *options)) for name, options in _OPTIONS.items()},
    SECOND: f"ckptctl dump {' '.join(_DURABLE)} ten steps after another snapshot of the same run",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a dump says of itself: the memory it took, and what it did before the job stood still, if it says."""

    peak_bytes: int
    before_freeze_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to save a job that runs on: to a new folder, which `prepare`, not measured, may have filled already."""

    name: str
    save: Callable[[Job, Path], Told]
    prepare: Callable[[Job, Path], None] = lambda _job, _target: None


def offered(names: Sequence[str]) -> list[str]:
    """Those of the ways that this CRIU has; says so where it lacks one. Ends the program where there is no such way."""
    for name in names:
        if name not in EXPLAINED:
            raise SystemExit(f"bench: there is no way {name!r}, but {', '.join(EXPLAINED)}")
    if DIRECT not in names or offers_direct_io(find_criu()):
        return list(names)
    print(f"(no {DIRECT}: {find_criu()} does not know {_DIRECT_IO[0]})")
    return [name for name in names if name != DIRECT]


def ways(names: Sequence[str]) -> list[Way]:
    """The ways of these names."""
    criu = find_criu()
    known = {
        PLAIN: Way(PLAIN, partial(_save_plainly, criu, ())),
        DIRECT: Way(DIRECT, partial(_save_plainly, criu, _DIRECT_IO)),
        "tmpfs": Way("tmpfs", partial(_save_by_memory, criu)),
        "tar-zstd": Way("tar-zstd", partial(_save_packed, criu)),
        SECOND: Way(SECOND, partial(_save_again, _DURABLE), partial(_save_before, _DURABLE)),
        **{name: Way(name, partial(_save_with_ckptctl, options)) for name, options in _OPTIONS.items()},
    }
    return [known[name] for name in names]


def _save_plainly(criu: Path, options: Sequence[str], job: Job, target: Path) -> Told:
    ended = _dump_plainly(criu, options, job, target)
    write_through(target)
    return Told(ended.peak_bytes)


def _save_by_memory(criu: Path, job: Job, target: Path) -> Told:
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-", dir=_IN_MEMORY) as name:
        ended = _dump_plainly(criu, (), job, Path(name, "images"))
        shutil.copytree(Path(name, "images"), target)
        write_through(target)
    return Told(ended.peak_bytes)


def _save_packed(criu: Path, job: Job, target: Path) -> Told:
    target.mkdir()
    images, archive = target / "images", target / "images.tar.zst"
    ended = _dump_plainly(criu, (), job, images)
    tar = subprocess.Popen(["tar", "-C", images, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["zstd", "-q", "-3", "-T0", "-o", archive], stdin=tar.stdout, check=True)
    if tar.wait():
        raise subprocess.CalledProcessError(tar.returncode, tar.args)
    shutil.rmtree(images)
    write_through(target)
    return Told(ended.peak_bytes)


def _dump_plainly(criu: Path, options: Sequence[str], job: Job, images: Path) -> Ended:
    images.mkdir()
    words: list[str | Path] = [
        "--leave-running",
        "--tree",
        str(job.pid),
        "--images-dir",
        images,
        "--log-file",
        "dump.log",
    ]
    return run([criu, "dump", *options, *words])


def _save_with_ckptctl(options: Sequence[str], job: Job, target: Path) -> Told:
    return _told(run(_words(job, [*options, "--to", str(target)])))


def _save_before(options: Sequence[str], job: Job, target: Path) -> None:
    run(_words(job, [*options, *_in_store(target)]))
    job.train()


def _save_again(options: Sequence[str], job: Job, target: Path) -> Told:
    return _told(run(_words(job, [*options, *_in_store(target)])))


def _in_store(target: Path) -> list[str]:
    return ["--store", str(target), "--run", "bench"]


def _words(job: Job, options: Sequence[str]) -> list[str]:
    return [str(CKPTCTL), "dump", "--pid", str(job.pid), "--leave-running", "--json", *options]


def _told(ended: Ended) -> Told:
    timings = {each["name"]: float(each["seconds"]) for each in json.loads(ended.output)["result"]["timings"]}
    after_s = sum(timings[name] for name in ("freeze", "describe", "commit"))
    return Told(ended.peak_bytes, before_freeze_s=ended.seconds - after_s)


def bytes_on_disk(folder: Path, before: frozenset[int] = frozenset()) -> int:
    """What the files of a folder take on the disk, but for those that were there `before` (by inode), once each."""
    found = {status.st_ino: status.st_blocks * 512 for status in _files(folder)}
    return sum(size for inode, size in found.items() if inode not in before)


def inodes(folder: Path) -> frozenset[int]:
    """The files of a folder, which need not be there."""
    return frozenset(status.st_ino for status in _files(folder))


def _files(folder: Path) -> list[os.stat_result]:
    return [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
