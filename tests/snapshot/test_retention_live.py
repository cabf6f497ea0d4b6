"""Retention beside real dumps and restores of a real job."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from support import CommandLine
from support.leftovers import assert_goes_on, assert_nothing_is_left
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

CutOff = Callable[..., subprocess.CompletedProcess[str]]
Paused = Callable[..., subprocess.Popen[str]]


def ids(ckptctl: CommandLine) -> list[str]:
    return [entry["id"] for entry in ckptctl.json("list")["result"]]


def dumped(ckptctl: CommandLine, shape: Shape, *words: str) -> str:
    """A snapshot of the job, which goes on."""
    dump = ckptctl.json("dump", "--pid", str(shape.pid), "--leave-running", "--run", "job", *words)
    found: str = dump["result"]["id"]
    shape.wait_steps(shape.steps() + 2)
    return found


def test_what_stays_can_be_restored(counting: Shape, ckptctl: CommandLine) -> None:
    made = [
        dumped(ckptctl, counting, "--step", str(step), "--metric", f"val_loss={loss}")
        for step, loss in ((10, 0.9), (20, 0.2), (30, 0.4), (40, 0.5), (50, 0.6))
    ]
    ckptctl("pin", "step:10").check()
    ckptctl("forget", "--keep-last", "1", "--keep-best", "1", "--metric", "val_loss", "--prune").check()
    assert ids(ckptctl) == [made[0], made[1], made[3], made[4]]
    ckptctl("verify", "--read-data").check()
    for selector in ("best", "job/latest~3"):
        counting.job.kill()
        ckptctl("restore", selector).check()
        assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_nothing_is_removed_under_a_dump(counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    made = [dumped(ckptctl, counting) for _ in range(3)]
    dump = paused("started", "commit", "dump", "--pid", str(counting.pid), "--leave-running", "--run", "job")
    refused = ckptctl("forget", "--run", "job", "--keep-last", "1").check(11)
    assert "The run job is in use by process" in refused.stderr
    assert ids(ckptctl) == made
    ckptctl("prune").check(3)
    assert list((ckptctl.store / "staging").iterdir())
    ckptctl("pin", made[0]).check()  # which holds up nobody
    waiting = ckptctl.start("forget", "--run", "job", "--keep-last", "1", "--lock-wait", "1m")
    dump.send_signal(signal.SIGCONT)
    assert dump.wait(60) == 0, dump.communicate()
    assert waiting.wait(60) == 0, waiting.communicate()
    left = ids(ckptctl)
    assert left[:2] == [made[0], made[2]]
    assert len(left) == 3
    assert_goes_on(counting)


def test_what_a_killed_dump_left_is_mended_and_not_pruned_away(
    counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    made = dumped(ckptctl, counting)
    ended = cut_off(
        "SIGKILL", "finished", "freeze", "dump", "--pid", str(counting.pid), "--leave-running", "--run", "job"
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    ckptctl("prune").check()
    assert ids(ckptctl) == [made]
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_a_restore_writes_down_what_it_has_read(counting: Shape, ckptctl: CommandLine) -> None:
    made = [dumped(ckptctl, counting, "--no-dedup") for _ in range(4)]
    for name in (made[1], made[3]):
        images = ckptctl.store / "runs" / "job" / name / "images"
        image = max(images.iterdir(), key=lambda path: path.stat().st_size)
        data = bytearray(image.read_bytes())
        data[len(data) // 2] ^= 1
        image.write_bytes(data)
    counting.job.kill()
    assert "damaged" in ckptctl("restore", made[1]).check(13).stderr
    assert made[2] in ckptctl("restore", "latest").check().stderr  # instead of it
    assert_goes_on(counting)
    entries = {entry["id"]: entry for entry in ckptctl.json("list")["result"]}
    verified = [entries[name]["verification"] and entries[name]["verification"]["sound"] for name in made]
    assert verified == [None, False, True, False]
    assert [entries[name]["sound"] for name in made] == [True, False, True, False]
    ckptctl("forget", "--keep-last", "1").check()
    assert ids(ckptctl) == made[1:]  # the damaged ones are for somebody to look at
    assert ckptctl.json("show", "latest")["result"]["manifest"]["id"] == made[2]
