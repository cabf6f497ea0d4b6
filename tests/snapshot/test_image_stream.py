"""Snapshots whose memory went through ckptctl into a container: taken, restored, damaged, copied; and without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs, wait_for
from support.jobs import state
from support.leftovers import assert_goes_on, assert_nothing_is_left, not_private
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

Start = Callable[..., AbstractContextManager[Shape]]
MIB = 1 << 20
PAGE = 4096
MARK = b"generation:"


def images_of(ckptctl: CommandLine) -> Path:
    return Path(ckptctl.json("show", "latest")["result"]["folder"]) / "images"


def container_of(ckptctl: CommandLine) -> dict[str, object] | None:
    found: dict[str, object] | None = ckptctl.json("show", "latest")["result"]["manifest"]["images"]["container"]
    return found


def test_memory_is_in_the_container_and_comes_back(counting: Shape, ckptctl: CommandLine) -> None:
    report = ckptctl("dump", "--pid", str(counting.pid), "--aim", "durable", "--json").check().document["result"]
    assert (report["images"], report["buffer_bytes"]) == ("stream", 64 * MIB)
    memory = ckptctl.json("show", "latest")["result"]["manifest"]["memory"]
    assert memory["buffer_bytes"] == 64 * MIB
    assert report["peak_bytes"] >= memory["peak_bytes"] >= 64 * MIB
    images = images_of(ckptctl)
    container = container_of(ckptctl)
    assert container is not None
    assert (images / "pages.blocks").stat().st_size == container["size_bytes"]
    assert not list(images.glob("pages-*.img"))
    assert not list(images.glob("*.sock"))
    assert report["image_bytes"] == sum(path.stat().st_size for path in images.iterdir())
    assert not_private(images) == []
    ckptctl("verify", "--read-data").check()
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert not list(images.glob("*.sock"))
    assert_nothing_is_left(ckptctl)


def test_files_of_criu_where_they_are_asked_for(counting: Shape, ckptctl: CommandLine) -> None:
    said = ckptctl("dump", "--pid", str(counting.pid), "--images", "directory", "-v").check().stdout
    assert "of memory\n" in said, "and none of it for buffers"
    assert container_of(ckptctl) is None
    assert list(images_of(ckptctl).glob("pages-*.img"))
    assert not list(images_of(ckptctl).glob("pages.blocks"))
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)


def test_an_unknown_form_is_refused(counting: Shape, ckptctl: CommandLine) -> None:
    assert "--images tar" in ckptctl("dump", "--pid", str(counting.pid), "--images", "tar").check(2).stderr
    assert_goes_on(counting)


# A job that changes its memory while it is saved.

_CHANGING = f"""
import sys
pages = {32 * MIB // PAGE}
memory = bytearray(pages * {PAGE})
generation = 0
while True:
    generation += 1
    mark = {MARK!r} + generation.to_bytes(8, "big")
    for start in range(0, len(memory), {PAGE}):
        for place in (start + 64, start + {64 + PAGE // 4}):
            memory[place : place + len(mark)] = mark
    if generation == 1:
        print("changing", flush=True)
"""


def generations(image: bytes) -> list[int]:
    """Of the pages that are marked, in the order of their addresses; a stray mark is not followed by another."""
    places = [found.start() for found in re.finditer(re.escape(MARK), image)]
    marked = [place + len(MARK) for place in places if image.startswith(MARK, place + PAGE // 4)]
    return [int.from_bytes(image[place : place + 8], "big") for place in marked]


def test_what_is_saved_is_the_memory_of_one_moment(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    """The pages in CRIU's pipes are the job's own: had it run on too early, later generations were among them."""
    job = start_job([sys.executable, "-c", _CHANGING])
    job.wait_for_lines(1)
    for number in range(5):
        ckptctl("dump", "--pid", str(job.pid), "--leave-running").check()
        ckptctl("export", "latest", tmp_path / str(number)).check()
        pages = b"".join(path.read_bytes() for path in sorted((tmp_path / str(number) / "images").glob("pages-*.img")))
        found = generations(pages)
        assert len(found) == 32 * MIB // PAGE
        assert found == sorted(found, reverse=True), "they are written in the order of their addresses"
        assert found[0] - found[-1] <= 1
    assert job.running()


# Damage.


@pytest.fixture
def saved(counting: Shape, ckptctl: CommandLine) -> Iterator[Path]:
    """A job that was saved and has ended; the container."""
    ckptctl("dump", "--pid", str(counting.pid)).check()
    yield images_of(ckptctl) / "pages.blocks"


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.9999])
def test_a_damaged_block_is_found_before_the_job_runs(
    share: float, saved: Path, counting: Shape, ckptctl: CommandLine
) -> None:
    steps = counting.steps()
    position = int(saved.stat().st_size * share)
    flip(saved, position)
    assert "images/pages.blocks" in ckptctl("verify", "--read-data").check(13).stdout
    failed = ckptctl("restore", "latest", "--run", saved.parents[2].name, "--json")
    assert failed.status == 13, failed
    assert "pages.blocks" in failed.document["error"]["message"]
    assert not counting.job.processes()
    assert counting.steps() == steps
    flip(saved, position)
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_a_damaged_block_in_a_namespace_of_its_own(saved: Path, counting: Shape, ckptctl: CommandLine) -> None:
    flip(saved, saved.stat().st_size // 2)
    identity = saved.parents[1].name
    assert "pages.blocks" in ckptctl("restore", identity, "--new-pid-namespace").check(13).stderr
    assert not counting.job.processes()
    assert_nothing_is_left(ckptctl)


# Copies.


@pytest.mark.parametrize("images", ["directory", "stream"])
def test_a_copy_restores_like_the_original(
    images: str, saved: Path, counting: Shape, ckptctl: CommandLine, tmp_path: Path
) -> None:
    copy, again = tmp_path / "copy", tmp_path / "again"
    ckptctl("export", "latest", copy, "--images", images).check()
    assert not_private(copy) == []
    ckptctl("verify", "--read-data", copy).check()
    ckptctl("export", copy, again, "--images", "stream").check()
    assert (again / "images/pages.blocks").stat().st_size == saved.stat().st_size
    identity = saved.parents[1].name
    ckptctl("rm", identity, "--force").check()
    ckptctl("restore", copy).check()
    assert_goes_on(counting)
    counting.job.kill()
    imported = ckptctl("import", copy, "--run", "brought", "--json").check().document["result"]
    assert (imported["id"], imported["run"]) == (identity, "brought")
    ckptctl("verify", "--read-data").check()
    ckptctl("restore", "brought/latest").check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("images", ["directory", "stream"])
def test_nothing_damaged_is_copied(images: str, saved: Path, ckptctl: CommandLine, tmp_path: Path) -> None:
    for victim in (saved, saved.with_name("inventory.img")):
        flip(victim, victim.stat().st_size // 2)
        refused = ckptctl("export", "latest", tmp_path / "copy", "--images", images).check(13)
        assert victim.name in refused.stderr
        assert list(tmp_path.glob("copy*")) == []
        assert list(tmp_path.glob(".copy*")) == []
        flip(victim, victim.stat().st_size // 2)


def test_a_copy_does_not_replace_anything(saved: Path, ckptctl: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    ckptctl("export", "latest", tmp_path / "taken").check(10)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    ckptctl("import", saved.parents[1]).check(10)
    ckptctl("export", "tag:none", tmp_path / "copy").check(4)
    ckptctl("import", tmp_path / "taken").check(13)
    assert_nothing_is_left(ckptctl)


def test_zeros_are_holes_in_a_copy(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    program = f"memory = bytearray({64 * MIB})\nfor at in range(0, len(memory), 4096): memory[at] = 1; memory[at] = 0\n"
    job = start_job([sys.executable, "-c", program + "print('ready', flush=True)\nimport time\ntime.sleep(600)"])
    job.wait_for_lines(1)
    ckptctl("dump", "--pid", str(job.pid)).check()
    container = container_of(ckptctl)
    assert container is not None
    assert int(str(container["zero_bytes"])) >= 60 * MIB
    assert images_of(ckptctl).joinpath("pages.blocks").stat().st_size < 32 * MIB
    ckptctl("export", "latest", tmp_path / "copy").check()
    pages = max((tmp_path / "copy/images").glob("pages-*.img"), key=lambda path: path.stat().st_size)
    assert pages.stat().st_size >= 64 * MIB
    assert pages.stat().st_blocks * 512 < 32 * MIB
    ckptctl("restore", tmp_path / "copy").check()
    wait_for(lambda: state(job.pid) == "S", 10, "it sleeps on")


def test_by_criu_alone(saved: Path, counting: Shape, ckptctl: CommandLine, criu: Path, tmp_path: Path) -> None:
    """restore.sh makes CRIU's files from the container, and leaves nothing but its log."""
    work = tmp_path / "work"
    work.mkdir()
    script = saved.parents[1] / "restore.sh"
    before = sorted(saved.parents[1].rglob("*"))
    environment = {**os.environ, "CKPTCTL_CRIU": str(criu), "PYTHON": sys.executable}
    done = subprocess.run(["sh", script, work], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert_goes_on(counting)
    assert not (work / "images").exists()
    assert sorted(saved.parents[1].rglob("*")) == before


# Kills, in the middle of the stream.


def memory_comes(ckptctl: CommandLine) -> bool:
    return sum(path.stat().st_size for path in ckptctl.store.glob("staging/*/images/pages*")) > 20 * MIB


@pytest.mark.parametrize("leave", [(), ("--leave-running",)])
def test_ckptctl_killed_while_memory_comes(leave: tuple[str, ...], start_shape: Start, ckptctl: CommandLine) -> None:
    """Nobody reads any more: criu fails by itself, and the job runs on without anybody's help."""
    with start_shape("memory", "--mib", "600") as shape:
        process = ckptctl.start("dump", "--pid", str(shape.pid), *leave)
        wait_for(lambda: memory_comes(ckptctl), 30, "pages")
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: state(shape.pid) not in ("T", "t"), 30, "it runs again")
        assert_goes_on(shape)
        ckptctl("recover").check()
        assert_goes_on(shape)
        assert ckptctl.json("list")["result"] == []
        assert_nothing_is_left(ckptctl)


def test_ckptctl_stopped_while_memory_comes(start_shape: Start, ckptctl: CommandLine) -> None:
    """The job waits with it, and nothing is torn."""
    with start_shape("memory", "--mib", "600") as shape:
        process = ckptctl.start("dump", "--pid", str(shape.pid), "--leave-running")
        wait_for(lambda: memory_comes(ckptctl), 30, "pages")
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0, process.communicate()
        ckptctl("verify", "--read-data").check()
        assert_goes_on(shape)


def test_many_processes(start_shape: Start, ckptctl: CommandLine, start_job: Jobs) -> None:
    """Each has pages of its own."""
    program = (
        "import os, time\nfor number in range(12):\n    if os.fork() == 0: break\n"
        "mine = os.urandom(3_000_000)\n"
        "while True:\n    os.write(1, f'{os.getpid()} {sum(mine)}\\n'.encode())\n    time.sleep(0.5)\n"
    )
    job: Job = start_job([sys.executable, "-c", program])
    job.wait_for_lines(26)
    before = set(job.lines())
    assert len(before) == 13
    ckptctl("dump", "--pid", str(job.pid)).check()
    count = len(job.lines())
    ckptctl("restore", "latest").check()
    job.wait_for_lines(count + 26)
    assert set(job.lines()) == before
