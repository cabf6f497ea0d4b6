"""ckptctl is killed at every step and at random moments: the job runs or is restorable, and nothing is left behind."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.app import opened
from ckptctl.events import Silence
from ckptctl.snapshot.verify import verify
from ckptctl.store.layout import Store
from support import CommandLine, wait_for
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

DUMP_STEPS = ("look", "prepare", "freeze", "describe", "commit", "end", "link")
LEAVING = [(step, ("--leave-running",)) for step in DUMP_STEPS if step != "end"]
RESTORE_STEPS = ("claim", "check", "verify", "prepare", "files", "restore", "look", "finish")
MOMENTS = ("started", "finished")
KILLS = 50
CutOff = Callable[..., subprocess.CompletedProcess[str]]


def listed(ckptctl: CommandLine) -> list[str]:
    """The ids in the store, all of which must be sound to the last byte; recovers what was cut off, too."""
    entries = ckptctl.json("list")["result"]
    with opened({"store": ckptctl.store, "state": ckptctl.state}, Silence()) as app:
        for entry in entries:
            folder = Store(ckptctl.store).run(entry["run"]).snapshot(entry["id"])
            verdict = verify(folder, read_data=True, services=app.services)
            assert verdict.sound, verdict.lines
    return [entry["id"] for entry in entries]


def newest(ckptctl: CommandLine) -> str:
    """The id of the newest snapshot; named so, its images are read in the restore and not to choose it."""
    found: str = ckptctl.json("list")["result"][-1]["id"]
    return found


def assert_nothing_is_left(ckptctl: CommandLine) -> None:
    """No journal entry, no lock, no staging folder."""
    left = [*ckptctl.state.glob("journal/*.json"), *ckptctl.state.glob("locks/*.json")]
    left += [*ckptctl.store.glob("staging/*"), *ckptctl.store.glob("locks/*.json")]
    assert not left


def assert_running_or_restorable(shape: Shape, ckptctl: CommandLine) -> None:
    """The job runs on, or a restore of the newest snapshot makes it; its log is unbroken either way."""
    ids = listed(ckptctl)
    if not shape.job.running():
        assert ids, "the job is gone and there is no snapshot"
        ckptctl("restore", "latest").check()
    shape.wait_steps(shape.steps() + 3)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("step", "leave"), [*((step, ()) for step in DUMP_STEPS), *LEAVING])
def test_a_dump_killed_at_a_step(
    step: str, moment: str, leave: tuple[str, ...], counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    ended = cut_off("SIGKILL", moment, step, "dump", "--pid", str(counting.pid), *leave)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert_running_or_restorable(counting, ckptctl)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("step", DUMP_STEPS)
def test_a_dump_interrupted_at_a_step(
    step: str, number: str, counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    """Before the commit the job runs on and nothing is listed; after it the dump comes to its end."""
    ended = cut_off(number, "started", step, "dump", "--pid", str(counting.pid))
    if step in ("end", "link"):
        assert ended.returncode == 0, ended.stderr
        assert not counting.job.running()
        assert len(listed(ckptctl)) == 1
    else:
        assert ended.returncode == {"SIGTERM": 143, "SIGINT": 130}[number], ended.stderr
        assert "runs on" in ended.stderr
        assert listed(ckptctl) == []
        counting.wait_steps(counting.steps() + 3)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_restore_killed_at_a_step(
    step: str, moment: str, counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    counting.wait_steps(counting.steps() + 10)
    counting.job.kill()
    before = counting.log.read_text()
    ended = cut_off("SIGKILL", moment, step, "restore", newest(ckptctl))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    listed(ckptctl)
    if not counting.job.running():
        assert counting.log.read_text() == before, "the log is as it was"
    assert_running_or_restorable(counting, ckptctl)


@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_a_restore_interrupted_at_a_step(step: str, counting: Shape, ckptctl: CommandLine, cut_off: CutOff) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    counting.wait_steps(counting.steps() + 10)
    counting.job.kill()
    before = counting.log.read_text()
    ended = cut_off("SIGTERM", "started", step, "restore", newest(ckptctl))
    if ended.returncode == 0:
        assert step in ("look", "finish"), "criu was done already"
    else:
        assert ended.returncode == 143, ended.stderr
        assert counting.log.read_text() == before, ended.stderr
        assert not counting.job.processes()
    assert_running_or_restorable(counting, ckptctl)


@pytest.mark.parametrize("verb", ["dump", "restore"])
def test_kills_at_random_moments(verb: str, counting: Shape, ckptctl: CommandLine) -> None:
    """Dumps, or restores, of one job, each killed after a random time; the next command mends it."""
    chance = random.Random(20261120)
    commands = {"dump": ("dump", "--pid", str(counting.pid)), "restore": ("restore", "latest")}
    whole_s = {name: timed(ckptctl, *words) for name, words in commands.items()}[verb]
    killed = 0
    while killed < KILLS // 2:
        if counting.job.running() and verb == "restore":
            ckptctl(*commands["dump"]).check()
        elif not counting.job.running() and verb == "dump":
            ckptctl(*commands["restore"]).check()
        process = ckptctl.start(*commands[verb])
        time.sleep(chance.uniform(0.1, 1.1) * whole_s)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            whole_s *= 0.9  # the machine was busier before
        ids = listed(ckptctl)
        if not counting.job.running():
            wait_for(lambda: not counting.job.processes(), 10, "the end of the job")
            assert ids, f"the job was lost after {killed} kills"
        counting.steps()
        assert_nothing_is_left(ckptctl)
        if len(ids) > 6:
            ckptctl("forget", "--keep-last", "2", "--prune").check()
    assert_running_or_restorable(counting, ckptctl)


def test_recover_says_what_it_did(counting: Shape, ckptctl: CommandLine, cut_off: CutOff) -> None:
    cut_off("SIGKILL", "finished", "freeze", "dump", "--pid", str(counting.pid))
    assert not counting.job.running(), "the job stands still until somebody looks"
    said = ckptctl("recover").check().stdout
    assert "runs on" in said
    assert ckptctl.json("recover")["result"] == []
    counting.wait_steps(counting.steps() + 3)


def test_criu_killed_along_with_ckptctl_leaves_no_half_tree(
    counting: Shape, ckptctl: CommandLine, tmp_path: Path
) -> None:
    """A machine out of memory kills both: what criu had forked by then is ended, and the snapshot restores again."""
    ckptctl("dump", "--pid", str(counting.pid)).check()
    process = ckptctl.start("restore", "latest")
    criu = wait_for(
        lambda: subprocess.run(["pgrep", "-f", "criu restore"], capture_output=True).stdout.split(), 20, "criu"
    )
    process.kill()
    for pid in criu:
        subprocess.run(["kill", "-9", pid.decode()], capture_output=True)
    assert_running_or_restorable(counting, ckptctl)


def timed(ckptctl: CommandLine, *words: str) -> float:
    """How long it takes undisturbed."""
    began = time.monotonic()
    ckptctl(*words).check()
    return time.monotonic() - began
