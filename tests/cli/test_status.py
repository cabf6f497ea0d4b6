"""`ckptctl status`: what runs, what is left of those that do not, and the curves."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.output.status import sparkline
from support import CommandLine, wait_for
from support.command_line import PROGRAM

_BARS = "▁▂▃▄▅▆▇█"
JOB = """
import sys, time
for step in range(1, 100_000):
    print(f"step {step} loss {100 / step:.6f}", flush=True)
    time.sleep(0.05)
"""
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin(ckptctl: CommandLine) -> Iterator[Begin]:
    """`begin("gpt", "--every", "10steps")`: a run that goes on until it is killed, with everything that it started."""

    def start(name: str, *words: str) -> subprocess.Popen[str]:
        return ckptctl.start("run", "--run", name, *words, "--", sys.executable, "-c", JOB)

    yield start
    mark = f"CKPTCTL_STATUS={ckptctl.store}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes() or str(ckptctl.store) in str((entry / "fd" / "1").readlink()):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def the_run(ckptctl: CommandLine, name: str = "gpt") -> Any:
    (found,) = (run for run in ckptctl.json("status")["result"]["runs"] if run["run"] == name)
    return found


def reaches(ckptctl: CommandLine, step: int) -> Callable[[], bool]:
    return lambda: (the_run(ckptctl)["progress"]["step"] or 0) >= step


@pytest.mark.requires_criu
def test_a_run_from_its_first_step_to_its_end(begin: Begin, ckptctl: CommandLine) -> None:
    process = begin("gpt", "--every", "20steps")
    wait_for(lambda: (ckptctl.store / "runs" / "gpt" / "supervision.json").exists(), 30, "the run")
    wait_for(lambda: the_run(ckptctl)["snapshots"] >= 2, 60, "two snapshots")
    found = the_run(ckptctl)
    assert found["standing"] == "running"
    assert found["supervisor_pid"] == process.pid
    assert found["newest"]["step"] >= 20
    assert found["memory_bytes"] > 1 << 20
    wait_for(lambda: the_run(ckptctl)["next_due"].startswith("at step "), 30, "when the next is due")
    said = ckptctl("status", "--run", "gpt").check().stdout
    assert f"gpt: running (pid {found['pid']})" in said
    assert "the job stood still for" in said
    assert "free" in said.splitlines()[-1]

    process.kill()
    process.wait()
    assert the_run(ckptctl)["standing"] == "unattended"
    assert "take it over" in ckptctl("status").check().stdout
    os.kill(found["pid"], signal.SIGKILL)
    wait_for(lambda: the_run(ckptctl)["standing"] == "lost", 10, "the end of the job")
    assert "brings it back" in ckptctl("status").check().stdout

    again = begin("gpt")
    wait_for(lambda: the_run(ckptctl)["standing"] == "running", 30, "the resume")
    again.send_signal(signal.SIGTERM)
    said, errors = again.communicate(timeout=60)
    assert again.returncode == 75, errors
    found = the_run(ckptctl)
    assert found["standing"] == "saved"
    assert found["pid"] is None
    assert "saved and ended; the same command brings it back" in ckptctl("status").check().stdout

    ckptctl("restore", "latest", "--run", "gpt").check()
    found = the_run(ckptctl)
    assert (found["standing"], found["exit_status"]) == ("unattended", None)
    assert f"gpt: running (pid {found['pid']}), but nobody looks after it" in ckptctl("status").check().stdout
    os.kill(found["pid"], signal.SIGKILL)
    wait_for(lambda: the_run(ckptctl)["standing"] == "saved", 10, "the end of the job")


@pytest.mark.parametrize(("status", "standing", "words"), [(0, "finished", "finished"), (3, "died", "status 3")])
def test_a_job_that_ends_while_nobody_looks(
    status: int, standing: str, words: str, ckptctl: CommandLine, tmp_path: Path
) -> None:
    job = f"while ! [ -e {tmp_path}/end ]; do sleep 0.05; done; exit {status}"
    process = ckptctl.start("run", "--run", "gpt", "--", "sh", "-c", job)
    wait_for((ckptctl.store / "runs" / "gpt" / "supervision.json").exists, 30, "the run")
    wait_for(lambda: the_run(ckptctl)["pid"], 30, "the job")
    process.kill()
    process.wait()
    (tmp_path / "end").touch()
    wait_for(lambda: the_run(ckptctl)["standing"] != "unattended", 30, "the end of the job")
    found = the_run(ckptctl)
    assert (found["standing"], found["exit_status"]) == (standing, status)
    assert words in ckptctl("status").check().stdout


@pytest.mark.requires_criu
def test_live_on_a_terminal(begin: Begin, ckptctl: CommandLine) -> None:
    """It is drawn again and again, the step goes up, and Ctrl-C ends it."""
    begin("gpt")
    wait_for(lambda: (ckptctl.store / "runs" / "gpt" / "supervision.json").exists(), 30, "the run")
    master, slave = pty.openpty()
    live = subprocess.Popen(
        [PROGRAM, "status", "--live", "--interval", "0.5s"],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=ckptctl.environment,
    )
    os.close(slave)
    shown = b""
    until = time.monotonic() + 60
    while len({line for line in shown.split(b"\n") if b"progress" in line}) < 2 and time.monotonic() < until:
        if select.select([master], [], [], 1)[0]:
            shown += os.read(master, 1 << 16)
    live.send_signal(signal.SIGINT)
    assert live.wait(timeout=20) == 130
    with suppress(OSError):  # EIO is how Linux says that nobody has the terminal open any more
        while more := os.read(master, 1 << 16):
            shown += more
    os.close(master)
    assert b"Stopped" not in shown
    assert shown.count(b"\x1b[H\x1b[J") >= 2
    assert b"gpt: running" in shown
    assert len({line for line in shown.split(b"\n") if b"progress" in line}) >= 2, "the step went up"


@pytest.mark.requires_criu
def test_a_watched_job_is_brought_back_by_a_restore(start_job: Any, ckptctl: CommandLine) -> None:
    job = start_job([sys.executable, "-c", JOB])
    job.wait_for_lines(3)
    words = ("watch", "--pid", str(job.pid), "--run", "gpt", "--on-signal", "TERM=dump-and-stop")
    process = ckptctl.start(*words)
    wait_for((ckptctl.store / "runs" / "gpt" / "supervision.json").exists, 30, "the watch")
    wait_for(lambda: the_run(ckptctl)["progress"]["step"], 30, "a look at the job")
    process.terminate()
    assert process.wait(60) == 75
    assert the_run(ckptctl)["watched"]
    said = "gpt: saved and ended; `ckptctl restore latest --run gpt` brings it back"
    assert said in ckptctl("status").check().stdout
    ckptctl("restore", "latest", "--run", "gpt").check()
    # Nobody has written down that it runs, but there it is.
    assert f"gpt: running (pid {job.pid}), but nobody looks after it" in ckptctl("status").check().stdout


@pytest.mark.requires_criu
def test_a_run_that_dies_again_and_again_is_given_up(ckptctl: CommandLine) -> None:
    words = ("run", "--run", "gpt", "--", sys.executable, "-c", "print('step 7 loss 1'); raise SystemExit(3)")
    ckptctl(*words).check(3)
    assert "gpt: died with exit status 3; the same command brings it back" in ckptctl("status").check().stdout
    ckptctl(*words).check(3)
    ckptctl(*words).check(93)
    said = ckptctl("status").check().stdout
    assert "gpt: died with exit status 3; that was the third time in a row, at step 7" in said
    assert said.count("  ! ") == 1, "the three deaths are one thing to know"


def test_a_command_that_is_not_there_is_not_said_to_come_back(ckptctl: CommandLine) -> None:
    ckptctl("run", "--run", "gpt", "--", "no-such-program").check(127)
    said = ckptctl("status").check().stdout
    assert "gpt: not started: its command cannot be run" in said
    assert "no-such-program cannot be started: No such file or directory." in said
    assert "brings it back" not in said


def test_nothing_to_show(ckptctl: CommandLine) -> None:
    ckptctl("status").check(10)
    assert "needs a terminal" in ckptctl("status", "--live").check(2).stderr
    assert "A run is named with --run NAME." in ckptctl("status", "gpt").check(2).stderr


@pytest.mark.requires_criu
def test_snapshots_that_nobody_supervised(start_job: Any, ckptctl: CommandLine) -> None:
    job = start_job([sys.executable, "-c", JOB])
    job.wait_for_lines(3)
    ckptctl("dump", "--pid", str(job.pid), "--run", "mine").check()
    assert the_run(ckptctl, "mine")["standing"] == "snapshots"
    assert "mine: not under supervision" in ckptctl("status").check().stdout
    assert "There is no run other" in ckptctl("status", "--run", "other").check(4).stderr


@pytest.mark.requires_criu
def test_a_record_that_cannot_be_read_is_said(start_job: Any, ckptctl: CommandLine) -> None:
    job = start_job([sys.executable, "-c", JOB])
    job.wait_for_lines(3)
    ckptctl("dump", "--pid", str(job.pid), "--run", "mine").check()
    (ckptctl.store / "runs" / "mine" / "supervision.json").write_text("{")
    assert "cannot be understood" in ckptctl("status").check().stdout


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=200))
def test_a_curve_fits_and_keeps_order(values: list[float | None]) -> None:
    curve = sparkline(values, 20)
    assert len(curve) <= 20
    assert set(curve) <= set(_BARS) | {" "}
    if 0 < len(values) <= 20:
        heights = [_BARS.find(one) for one in curve]
        known = [(v, h) for v, h in zip(values, heights, strict=False) if h >= 0 and v is not None]
        assert all(a[1] <= b[1] for a in known for b in known if a[0] < b[0])


def test_curves() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == _BARS
    assert sparkline([5, 5]) == "▄▄"
    assert sparkline([None, 1, None, 2]) == " ▁ █"
    assert sparkline([None, float("nan")]) == ""
    assert sparkline([0, 0, 10, 10], 2) == "▁█"
