"""Ended processes that nobody reaps, in a folder that looks like /proc."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ckptctl.host.orphans import count_unreaped, ended_lately
from support import wait_for


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Zombies 7 and 8 of process 1, zombie 9 of another, and one that lives, with a name that looks like the end."""
    for pid, state in (("7", "Z 1"), ("8", "Z 1"), ("9", "Z 8"), ("10", "S 1")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(f"{pid} (a) Z 1 b) {state} {' '.join(['0'] * 17)} 4{pid} 0")
    (tmp_path / "self").mkdir()
    return tmp_path


def test_those_that_stay_are_counted(proc: Path) -> None:
    assert count_unreaped(proc, 0.01) == 2


def test_one_that_is_reaped_meanwhile_is_not(proc: Path) -> None:
    reaper = threading.Timer(0.2, (proc / "7" / "stat").unlink)
    reaper.start()
    assert count_unreaped(proc, 2.0) == 1
    reaper.join()


def test_a_pid_that_is_used_again_is_another_process(proc: Path) -> None:
    path = proc / "8" / "stat"
    again = path.read_text().replace(" 48 ", " 99 ")
    writer = threading.Timer(0.2, path.write_text, [again])
    writer.start()
    assert count_unreaped(proc, 2.0) == 1
    writer.join()


def test_where_there_are_none_nothing_is_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert count_unreaped(tmp_path, 60.0) == 0
    assert time.monotonic() - began < 30


def test_those_that_have_only_just_ended_are_not_waited_for(proc: Path) -> None:
    for name, ran_s in (("self", 5000), ("7", 4998), ("8", 4999)):
        (proc / name / "sched").write_text(f"python (1)\n---\nse.exec_start    :     {ran_s}000.123\n")
    began = time.monotonic()
    assert count_unreaped(proc, 60.0) == 0
    assert time.monotonic() - began < 30
    (proc / "8" / "sched").write_text("se.exec_start    :     1000.123\n")
    assert count_unreaped(proc, 0.01) == 2


def test_the_kernel_tells_when_a_process_ended() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    entry = Path(f"/proc/{child}")
    try:
        wait_for(lambda: "Z" in (entry / "stat").read_text(), 10, "the end")
        if not (entry / "sched").exists():
            pytest.skip("no /proc/PID/sched here")
        assert ended_lately(Path("/proc"), str(child))
    finally:
        os.waitpid(child, 0)
