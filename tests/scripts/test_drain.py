"""scripts/drain: a machine is emptied, maintained, and filled again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import CommandLine
from support.command_line import PROGRAM
from support.trainings import STEPS, Training, command, undisturbed

DRAIN = Path(__file__).parents[2] / "scripts" / "drain"


@pytest.fixture
def trainings(ckptctl: CommandLine) -> Iterator[list[Training]]:
    """Two runs that have come some way."""
    started = [Training(ckptctl, "a"), Training(ckptctl, "b")]
    for one in started:
        one.wait_for_lines(20)
    yield started
    for one in started:
        one.close()


def drain(ckptctl: CommandLine, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DRAIN, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=ckptctl.environment,
        timeout=120,
    )


@pytest.mark.requires_criu
def test_maintenance_between_two_halves_of_two_runs(
    ckptctl: CommandLine, trainings: list[Training], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    look = f"cat '{ckptctl.store}'/runs/*/output/stdout.log | wc -l >'{seen}'; '{PROGRAM}' run -- true; [ $? = 75 ]"
    done = drain(ckptctl, "--reason", "new disks", "--", "sh", "-c", f'PATH="{os.environ["PATH"]}"; {look}')
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("a", "b"):
        assert f"run {name}: saved as " in done.stdout
        assert f"run {name}: runs" in done.stdout
    assert "drained since" in done.stderr
    assert 40 <= int(seen.read_text()) < 2 * STEPS
    expected = undisturbed()
    for one in trainings:
        one.wait_end()
        assert one.lines() == expected


@pytest.mark.requires_criu
def test_the_two_halves_by_hand(ckptctl: CommandLine, trainings: list[Training]) -> None:
    assert "would be asked" in drain(ckptctl, "--dry-run").stdout
    assert all(one.process.poll() is None for one in trainings)
    assert drain(ckptctl).returncode == 0
    for one in trainings:
        one.wait_gone()
    assert drain(ckptctl, "--end").returncode == 0
    for one in trainings:
        one.wait_end()
        assert one.lines() == undisturbed()


@pytest.mark.requires_criu
def test_a_run_that_is_not_saved_prevents_the_maintenance(
    ckptctl: CommandLine, trainings: list[Training], tmp_path: Path
) -> None:
    stubborn = Training(ckptctl, "c", "--on-signal", "TERM=ignore", words=command(5000))
    try:
        stubborn.wait_for_lines(5)
        done = drain(ckptctl, "--time-limit", "5s", "--", "touch", str(tmp_path / "done"))
        assert done.returncode == 3, done.stdout + done.stderr
        assert "run c: still runs" in done.stdout
        assert "run c: runs already" in done.stdout
        assert not (tmp_path / "done").exists()
        for one in trainings:
            one.wait_end()
            assert one.lines() == undisturbed()
    finally:
        stubborn.close()


def test_the_status_of_the_maintenance_is_that_of_the_script(ckptctl: CommandLine) -> None:
    assert drain(ckptctl, "--", "sh", "-c", "exit 7").returncode == 7
    assert drain(ckptctl, "--", "true").returncode == 0
    assert not (ckptctl.state / "drained.json").exists()


@pytest.mark.parametrize(
    "words", [("--frobnicate",), ("--reason",), ("--",), ("--end", "--", "true"), ("--user", "nobody at all")]
)
def test_a_wrong_word_does_nothing(words: tuple[str, ...], ckptctl: CommandLine) -> None:
    done = drain(ckptctl, *words)
    assert done.returncode == 2
    assert "--help" in done.stderr
    assert not ckptctl.state.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_does_it_as_each_user(ckptctl: CommandLine) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        programs = Path(folder)
        programs.chmod(0o755)
        fake = programs / "ckptctl"
        fake.write_text('#!/bin/sh\necho "$(id -un) $HOME ${CKPTCTL_STATE-none} $PWD $*"\n')
        fake.chmod(0o755)
        # From here it does not find the one of this clone.
        script = shutil.copy(DRAIN, programs / "drain")
        words = [script, "--user", "nobody", "--user", "root", "--time-limit", "9m", "--reason", "new disks"]
        environment = {**ckptctl.environment, "PATH": f"{programs}:{os.environ['PATH']}"}
        for more, action in (((), "drain --reason=new disks --time-limit=9m"), (("--end",), "undrain --time-limit=9m")):
            done = subprocess.run([*words, *more], capture_output=True, text=True, env=environment, timeout=60)
            home, own = pwd.getpwnam("nobody").pw_dir, ckptctl.environment["HOME"]
            expected = [f"nobody {home} none / {action}", f"root {own} {ckptctl.state} {Path.cwd()} {action}"]
            assert done.stdout.splitlines() == ["nobody:", expected[0], "root:", expected[1]], done.stderr
            assert done.returncode == 0


def test_help(ckptctl: CommandLine) -> None:
    assert "usage: scripts/drain" in drain(ckptctl, "--help").stdout
