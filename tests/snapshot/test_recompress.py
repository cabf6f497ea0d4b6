"""Snapshots that are made smaller where they lie: at each instant one of them is there and whole."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ckptctl.events import Caution
from ckptctl.snapshot.former import known_by
from ckptctl.store import catalog
from ckptctl.store.layout import SnapshotFolder, Store
from support import CommandLine, Job, Jobs, wait_for
from support.leftovers import assert_nothing_is_left
from support.recorder import Recorder
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

Start = Callable[..., AbstractContextManager[Shape]]
MIB = 1 << 20

# Numbers as weights are, 16 MiB of them, and some that change.
_TRAINS = """
import array, random, sys, time
chance = random.Random(0)
weights = array.array("f", [chance.gauss(0, 0.02) for _ in range(4 << 18)] * 4)
step = 0
while True:
    step += 1
    for place in range(step % 8 << 17, (step % 8 + 1) << 17, 64):
        weights[place] += 0.001
    print(step, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def job(start_job: Jobs) -> Iterator[Job]:
    job = start_job([sys.executable, "-c", _TRAINS])
    job.wait_for_lines(3)
    yield job


def dump(ckptctl: CommandLine, job: Job, *words: str) -> Any:
    found = ckptctl.json("dump", "--pid", str(job.pid), "--leave-running", "--run", "job", *words)["result"]
    job.wait_for_lines(len(job.lines()) + 3)
    return found


def disk_bytes(ckptctl: CommandLine) -> int:
    """What all files with memory take, each once."""
    found = {path.stat().st_ino: path.stat().st_blocks * 512 for path in ckptctl.store.rglob("*.blocks")}
    return sum(found.values())


def test_a_run_is_made_smaller(job: Job, ckptctl: CommandLine) -> None:
    made = [dump(ckptctl, job) for _ in range(3)]
    ckptctl("pin", made[0]["id"]).check()
    before = disk_bytes(ckptctl)
    alone = ckptctl("recompress", made[1]["id"]).check().stdout
    assert "shares memory with snapshots that are not among these" in alone
    assert disk_bytes(ckptctl) == before
    done = ckptctl.json("recompress", "--run", "job", "--compress", "auto")["result"]
    assert [one["id"] for one in done] == [one["id"] for one in made]
    assert all(one["left_because"] is None and one["after_bytes"] < one["before_bytes"] for one in done)
    assert disk_bytes(ckptctl) < 0.95 * before
    listed = ckptctl.json("list")["result"]
    assert [(one["id"], one["latest"], bool(one["pin"])) for one in listed] == [
        (made[0]["id"], False, True),
        (made[1]["id"], False, False),
        (made[2]["id"], True, False),
    ]
    assert all(one["shared_bytes"] > 0 for one in listed[1:]), "they share what they have shared"
    ckptctl("verify", "--read-data").check()
    last = dump(ckptctl, job)
    again = ckptctl.json("recompress", "--run", "job", "--compress", "auto")["result"]
    assert [one["left_because"] for one in again] == ["it is compressed already"] * 3 + [None]
    assert ckptctl.json("list")["result"][-1]["shared_bytes"] > 0.9 * last["shared_bytes"]
    ckptctl("verify", "--read-data").check()
    job.kill()
    ckptctl("restore", "latest").check()
    job.wait_for_lines(len(job.lines()) + 3)
    assert_nothing_is_left(ckptctl)


def test_what_cannot_be_is_left_or_refused(job: Job, ckptctl: CommandLine, tmp_path: Path) -> None:
    plain = dump(ckptctl, job, "--images", "directory")
    small = dump(ckptctl, job, "--compress", "better")
    done = {one["id"]: one["left_because"] for one in ckptctl.json("recompress", "--run", "job")["result"]}
    assert done == {plain["id"]: "its memory is in files of criu", small["id"]: "it is compressed already"}
    ckptctl("recompress").check(2)
    ckptctl("recompress", "latest", "--compress", "off").check(2)
    ckptctl("recompress", "tag:none").check(4)
    whole = dump(ckptctl, job, "--no-dedup")
    container = Path(whole["folder"], "images/pages.blocks")
    with container.open("r+b") as file:
        file.seek(8 * MIB)
        file.write(b"?" * 10)
    ckptctl("recompress", whole["id"]).check(13)
    assert container.stat().st_size > 12 * MIB, "it is as it was"
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.2])
def test_killed_at_any_time(after_s: float, job: Job, ckptctl: CommandLine) -> None:
    dump(ckptctl, job)
    dump(ckptctl, job)
    work = ckptctl.start("recompress", "--run", "job")
    time.sleep(after_s)
    work.send_signal(signal.SIGKILL)
    work.communicate()
    ckptctl("verify", "--read-data").check()
    assert len(ckptctl.json("list")["result"]) == 2
    ckptctl("prune").check()
    assert list((ckptctl.store / "staging").iterdir()) == []
    ckptctl("recompress", "--run", "job").check()
    ckptctl("verify", "--read-data").check()
    assert_nothing_is_left(ckptctl)


def test_a_dump_and_a_restore_go_on_meanwhile(
    job: Job, ckptctl: CommandLine, paused: Callable[..., subprocess.Popen[str]]
) -> None:
    """Only for the rename it needs the run for itself, and waits for it."""
    first = dump(ckptctl, job)
    other = paused("started", "commit", "dump", "--pid", str(job.pid), "-R", "--run", "job")
    work = ckptctl.start("recompress", first["id"])
    time.sleep(2)
    assert work.poll() is None
    other.send_signal(signal.SIGCONT)
    assert other.wait(60) == 0
    assert work.wait(60) == 0, work.communicate()
    ckptctl("verify", "--read-data").check()
    (_, second) = ckptctl.json("list")["result"]
    assert second["shared_bytes"] > 0
    assert_nothing_is_left(ckptctl)


@pytest.fixture
def held(job: Job, ckptctl: CommandLine) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """A snapshot that is being compressed, which stands still with half of it written."""
    first = dump(ckptctl, job)
    work = ckptctl.start("recompress", "--run", "job", "--json")
    wait_for(lambda: list(ckptctl.store.glob("staging/*.*/images/pages.blocks")), 30, "one that is written anew")
    work.send_signal(signal.SIGSTOP)
    yield first, work
    work.kill()
    work.wait(10)


def test_one_may_be_removed_while_it_is_written_anew(
    held: tuple[Any, subprocess.Popen[str]], job: Job, ckptctl: CommandLine
) -> None:
    first, work = held
    second = dump(ckptctl, job)
    refused = ckptctl("recompress", "--run", "job").check(11)
    assert "The run job is made smaller by" in refused.stderr
    ckptctl("rm", first["id"]).check()
    work.send_signal(signal.SIGCONT)
    said, _ = work.communicate(timeout=60)
    assert work.returncode == 0, said
    assert [one["left_because"] for one in json.loads(said)["result"]] == ["it was removed meanwhile"]
    assert [one["id"] for one in ckptctl.json("list")["result"]] == [second["id"]]
    ckptctl("verify", "--read-data").check()
    assert_nothing_is_left(ckptctl)


def test_what_was_replaced_meanwhile_is_shared_all_the_same(job: Job, ckptctl: CommandLine, tmp_path: Path) -> None:
    made = [dump(ckptctl, job) for _ in range(2)]
    run = Store(ckptctl.store).run("job")
    seen = catalog.read_entry(run, made[-1]["id"])
    ckptctl("recompress", "--run", "job").check()
    recorder = Recorder()
    folder = SnapshotFolder(ckptctl.store / "staging" / "next")
    folder.images.mkdir(parents=True)
    known = known_by(seen, folder, recorder)
    assert known is not None
    assert len(known) > 8
    there = {path.stat().st_ino for path in seen.folder.images.glob("*.blocks")}
    assert {path.stat().st_ino for path in folder.images.iterdir()} == there
    known.close()
    assert not recorder.events
    ckptctl("rm", made[-1]["id"], "--force").check()
    assert known_by(seen, folder, recorder) is None
    assert [event.code for event in recorder.events if isinstance(event, Caution)] == ["W_NOT_SHARED"]
    assert list(folder.images.iterdir()) == []
