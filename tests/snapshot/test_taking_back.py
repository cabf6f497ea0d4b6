"""What is taken back, and what is left to a recovery where that fails: no journal is closed over half a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from ckptctl.process.identity import identify
from ckptctl.snapshot.returned import NotReturned, pids_here
from support import CommandLine
from support.capabilities import criu_program
from support.jobs import state
from support.leftovers import assert_goes_on, assert_nothing_is_left
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

CutOff = Callable[..., subprocess.CompletedProcess[str]]
Paused = Callable[..., subprocess.Popen[str]]
Start = Callable[..., AbstractContextManager[Shape]]


def the_journal(ckptctl: CommandLine) -> Path:
    """The only entry of the journal."""
    (path,) = (ckptctl.state / "journal").glob("*.json")
    return path


def altered(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rebooted(ckptctl: CommandLine) -> None:
    """Let the journal look as if the machine had been started anew since."""
    altered(the_journal(ckptctl), lambda entry: entry["owner"].update(boot_id="of another boot"))


def one_that_ended() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


@pytest.fixture
def restored_half(counting: Shape, ckptctl: CommandLine, cut_off: CutOff) -> Shape:
    """A job that criu has restored, and whose ckptctl was killed before it let it run."""
    ckptctl("dump", "--pid", str(counting.pid)).check()
    ended = cut_off("SIGKILL", "finished", "restore", "restore", "latest")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert [state(pid) for pid in counting.job.processes()] == ["T"]
    return counting


def test_after_a_reboot_the_pids_are_those_of_strangers(restored_half: Shape, ckptctl: CommandLine) -> None:
    """They are neither continued nor killed, though pid, start and name fit."""
    rebooted(ckptctl)
    before = restored_half.job.processes()
    said = ckptctl("recover").check().stdout
    assert "is taken back" in said
    assert restored_half.job.processes() == before
    assert [state(pid) for pid in before] == ["T"]
    assert_nothing_is_left(ckptctl)


def test_after_a_reboot_a_dump_is_taken_back_without_its_job(
    counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    cut_off("SIGKILL", "finished", "freeze", "dump", "--pid", str(counting.pid))
    rebooted(ckptctl)
    assert "has not survived the restart of the machine" in ckptctl("recover").check().stdout
    assert [state(pid) for pid in counting.job.processes()] == ["T"]
    assert_nothing_is_left(ckptctl)


def test_after_a_reboot_a_dump_that_was_committed_is_listed(
    counting: Shape, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    cut_off("SIGKILL", "finished", "commit", "dump", "--pid", str(counting.pid))
    rebooted(ckptctl)
    assert "restore it from there" in ckptctl("recover").check().stdout
    assert [state(pid) for pid in counting.job.processes()] == ["T"], "a stranger"
    counting.job.kill()
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_a_recovery_that_was_killed_is_recovered(restored_half: Shape, ckptctl: CommandLine) -> None:
    """It was younger than what had been restored, which must be found all the same."""

    def taken_over(entry: Any) -> None:
        entry["recoverer"] = {
            **entry["owner"],
            "pid": one_that_ended(),
            "start_ticks": entry["owner"]["start_ticks"] * 2,
        }

    altered(the_journal(ckptctl), taken_over)
    assert "but the job runs as pid" in ckptctl("recover").check().stdout
    assert_goes_on(restored_half)
    assert_nothing_is_left(ckptctl)


def test_a_file_that_cannot_be_put_back_is_left_to_a_recovery(
    counting: Shape, ckptctl: CommandLine, paused: Paused, tmp_path: Path
) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    counting.wait_steps(counting.steps() + 5)
    counting.job.kill()
    before = counting.log.read_bytes()
    process = paused("started", "restore", "restore", "latest")
    assert len(counting.log.read_bytes()) < len(before), "it was cut"
    aside = counting.log.rename(tmp_path / "aside")
    counting.log.symlink_to(counting.log)
    os.kill(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 9, said
    assert "Not everything is taken back" in said
    assert the_journal(ckptctl).is_file()
    counting.log.unlink()
    aside.rename(counting.log)
    assert "is taken back" in ckptctl("recover").check().stdout
    assert counting.log.read_bytes() == before
    assert_nothing_is_left(ckptctl)
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)


def test_a_criu_that_leaves_no_statistics_leaves_no_job(counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    """It said that it was done; that ckptctl cannot make sense of it must not leave a job that nobody knows of."""
    ckptctl("dump", "--pid", str(counting.pid)).check()
    program = tmp_path / "criu"
    program.write_text(
        f"""#!{sys.executable}
import glob, os, subprocess, sys
status = subprocess.call([{str(criu_program())!r}, *sys.argv[1:]], close_fds=False)
if "restore" in sys.argv:
    folder = sys.argv[sys.argv.index("-W") + 1]
    os.unlink(os.path.join(folder, "stats-restore"))
sys.exit(status)
"""
    )
    program.chmod(0o755)
    failed = ckptctl("restore", "latest", environment={"CKPTCTL_CRIU": str(program)})
    assert failed.status not in (0, 1), failed.stderr
    assert "stats-restore" in failed.stderr
    assert "was not restored" in failed.stderr
    counting.job.wait_gone()
    assert_nothing_is_left(ckptctl)
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)


def test_connections_that_stay_locked_after_the_job_was_saved_are_a_warning(
    start_shape: Start, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    with start_shape("tcp_server") as shape:
        shape.wait_steps(5)
        done = cut_off("CAP_NET_ADMIN", "finished", "commit", "dump", "--pid", str(shape.pid), "--json")
        assert done.returncode == 0, done.stderr
        (warning,) = json.loads(done.stdout)["result"]["warnings"]
        assert "network connections of the job stay locked" in warning
        assert_nothing_is_left(ckptctl)
        ckptctl("restore", "latest").check()
        assert_goes_on(shape)


def test_a_job_that_cannot_be_let_go_keeps_what_its_recovery_needs(
    start_shape: Start, ckptctl: CommandLine, cut_off: CutOff
) -> None:
    with start_shape("tcp_server") as shape:
        shape.wait_steps(5)
        failed = cut_off("CAP_NET_ADMIN+SIGTERM", "started", "describe", "dump", "--pid", str(shape.pid))
        assert failed.returncode == 8, failed.stderr
        assert "ckptctl recover" in failed.stderr
        assert the_journal(ckptctl).is_file()
        assert "runs on" in ckptctl("recover").check().stdout
        assert_goes_on(shape)
        assert_nothing_is_left(ckptctl)


@pytest.fixture
def criu_that_first_fails(tmp_path: Path) -> Path:
    """A criu that meets an address in use at its first restore, and then is the real one."""
    log = Path(__file__).parents[1] / "criu" / "logs" / "address-in-use.log"
    program, met = tmp_path / "criu", tmp_path / "met"
    program.write_text(
        f"""#!{sys.executable}
import os, shutil, sys
if "restore" in sys.argv and not os.path.exists({str(met)!r}):
    open({str(met)!r}, "w").close()
    folder, name = (sys.argv[sys.argv.index(word) + 1] for word in ("-W", "-o"))
    shutil.copy({str(log)!r}, os.path.join(folder, name))
    sys.exit(1)
os.execv({str(criu_program())!r}, ["criu", *sys.argv[1:]])
"""
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("words", [(), ("--new-pid-namespace",)], ids=["same-pids", "new-pid-namespace"])
@pytest.mark.parametrize("name", ["tcp_server", "terminal --master outside"])
def test_an_address_that_is_still_wound_up_is_waited_for(
    name: str, words: tuple[str, ...], start_shape: Start, ckptctl: CommandLine, criu_that_first_fails: Path
) -> None:
    """The second try has new other sides for what leads out of the job: those of the first died with it."""
    with start_shape(*name.split()) as shape:
        shape.wait_steps(5)
        ckptctl("dump", "--pid", str(shape.pid)).check()
        ckptctl("restore", "latest", *words, environment={"CKPTCTL_CRIU": str(criu_that_first_fails)}).check()
        assert (criu_that_first_fails.parent / "met").exists()
        assert_goes_on(shape)
        assert_nothing_is_left(ckptctl)


def test_a_process_that_is_not_there_is_not_passed_over() -> None:
    with pytest.raises(NotReturned, match="1 of its processes are not there: 4194303"):
        pids_here([os.getpid(), 4194303], identify(os.getpid()))
