"""Snapshots of one run that share what is the same, of real jobs: removed, and brought back from what stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ckptctl.store import manifest_json
from support import CommandLine, Jobs, wait_for
from support.leftovers import assert_goes_on, assert_nothing_is_left
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

Start = Callable[..., AbstractContextManager[Shape]]
MIB = 1 << 20


@pytest.fixture
def job(start_shape: Start) -> Iterator[Shape]:
    """A job with 24 MiB that do not change."""
    with start_shape("memory", "--mib", "24") as shape:
        shape.wait_steps(3)
        yield shape


def dump(ckptctl: CommandLine, shape: Shape, *words: str) -> Any:
    """The report of a dump of the job, which goes on."""
    return ckptctl.json("dump", "--pid", str(shape.pid), "--leave-running", *words)["result"]


def packs_of(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder, "images").glob("pages-*.blocks"))


def test_what_is_the_same_is_shared_and_each_is_whole(
    job: Shape, ckptctl: CommandLine, criu: Path, tmp_path: Path
) -> None:
    made = [dump(ckptctl, job, "--run", "job", *words) for words in ((), (), ("--compress", "auto"))]
    assert made[0]["image_bytes"] > 24 * MIB
    assert all(one["shared_bytes"] >= 23 * MIB and one["image_bytes"] < 5 * MIB for one in made[1:])
    listed = ckptctl("list").check().stdout.splitlines()
    assert "shared" in listed[0]
    shown = ckptctl("show", "latest").check().stdout
    assert "were stored already" in shown
    assert "linked to the containers of" in shown
    for one in made[:2]:
        ckptctl("rm", one["id"]).check()
        ckptctl("verify", "--read-data").check()
    ckptctl("export", "latest", tmp_path / "files").check()
    ckptctl("export", "latest", tmp_path / "container", "--images", "stream").check()
    assert packs_of(tmp_path / "container") == []
    ckptctl("verify", "--read-data", tmp_path / "container").check()
    job.job.kill()
    ckptctl("restore", "latest").check()
    assert_goes_on(job)
    job.job.kill()
    ckptctl("import", tmp_path / "container", "--run", "brought").check()
    ckptctl("restore", "brought/latest").check()
    assert_goes_on(job)
    job.job.kill()
    wait_for(lambda: not Path(f"/proc/{job.pid}").exists(), 30, "its end")
    found = manifest_json.read(Path(made[2]["folder"], "manifest.json"))
    os.truncate(job.log, next(file.size_bytes or 0 for file in found.open_files if file.path == str(job.log)))
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "CKPTCTL_CRIU": str(criu), "PYTHON": sys.executable}
    script = Path(made[2]["folder"], "restore.sh")
    done = subprocess.run(["sh", script, work], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert_goes_on(job)
    assert_nothing_is_left(ckptctl)


def test_where_nothing_is_shared(job: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    """Asked not to, elsewhere than in the store, in another run, and with files of CRIU."""
    first = dump(ckptctl, job, "--run", "job")
    others = [
        dump(ckptctl, job, "--run", "job", "--no-dedup"),
        dump(ckptctl, job, "--to", str(tmp_path / "there")),
        dump(ckptctl, job, "--run", "other"),
        dump(ckptctl, job, "--run", "job", "--images", "directory"),
    ]
    assert all(packs_of(one["folder"]) == [] and one["image_bytes"] > 24 * MIB for one in [first, *others])
    again = dump(ckptctl, job, "--run", "job")
    assert again["image_bytes"] < 5 * MIB, "the newest with a container is shared with, whatever came since"


def test_a_damaged_one_is_passed_over(job: Shape, ckptctl: CommandLine) -> None:
    first = dump(ckptctl, job, "--run", "job")
    container = Path(first["folder"], "images/pages.blocks")
    with container.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"?" * 10)
    time.sleep(1)  # by their ids, snapshots of one second come in no order
    second = ckptctl("dump", "--pid", str(job.pid), "-R", "--run", "job", "--json").check()
    assert "W_NOT_SHARED" in second.stderr
    assert packs_of(second.document["result"]["folder"]) == []
    # A block that is altered shows when it is read, and from then on nobody shares it.
    third = dump(ckptctl, job, "--run", "job")
    (pack,) = packs_of(third["folder"])
    with Path(third["folder"], "images", pack).open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"?" * 10)
    said = ckptctl("verify", "--run", "job", "--read-data").check(13).stdout
    assert said.count("DAMAGED") == 3
    fourth = dump(ckptctl, job, "--run", "job")
    assert packs_of(fourth["folder"]) == []
    ckptctl("verify", "--read-data", fourth["id"]).check()
    assert_nothing_is_left(ckptctl)


def test_a_dump_that_fails_leaves_no_link(job: Shape, ckptctl: CommandLine, cut_off: Any) -> None:
    first = dump(ckptctl, job, "--run", "job")
    container = Path(first["folder"], "images/pages.blocks")
    cut_off("SIGKILL", "started", "commit", "dump", "--pid", str(job.pid), "-R", "--run", "job")
    assert container.stat().st_nlink == 2
    ckptctl("recover").check()
    assert container.stat().st_nlink == 1
    cut_off("SIGTERM", "started", "freeze", "dump", "--pid", str(job.pid), "-R", "--run", "job")
    assert container.stat().st_nlink == 1
    assert_goes_on(job)
    assert_nothing_is_left(ckptctl)


_CHANGES = """
import os, time
parts = [bytearray(os.urandom(1 << 20)) for _ in range(16)]
step = 0
while True:
    parts[step % 16][:] = os.urandom(1 << 20)
    step += 1
    print(step, flush=True)
    time.sleep(0.1)
"""


def test_what_rules_let_go_gives_its_space_back(start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job([sys.executable, "-c", _CHANGES])
    job.wait_for_lines(2)
    for _ in range(4):
        ckptctl("dump", "--pid", str(job.pid), "--leave-running", "--run", "job").check()
        job.wait_for_lines(len(job.lines()) + 6)
    before = disk_bytes(ckptctl)
    done = ckptctl.json("forget", "--run", "job", "--keep-last", "1", "--prune")["result"]["pruned"]
    assert done["reclaimed_bytes"] >= 2 * MIB
    assert disk_bytes(ckptctl) <= before - done["reclaimed_bytes"]
    assert len(ckptctl.json("list")["result"]) == 2
    ckptctl("verify", "--read-data").check()
    job.kill()
    ckptctl("restore", "job/backup").check()
    job.wait_for_lines(len(job.lines()) + 3)
    assert_nothing_is_left(ckptctl)


def disk_bytes(ckptctl: CommandLine) -> int:
    """What all files with memory take, each once."""
    found = {path.stat().st_ino: path.stat().st_blocks * 512 for path in ckptctl.store.rglob("*.blocks")}
    return sum(found.values())
