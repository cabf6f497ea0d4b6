"""A pid and its start time tell one process from the next."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ckptctl.process.identity import NoSuchProcess, exists, identify, is_alive


def test_a_running_process_is_alive() -> None:
    me = identify(os.getpid())
    assert is_alive(me)
    assert exists(me)


def test_another_start_time_is_another_process() -> None:
    me = identify(os.getpid())
    other = replace(me, start_ticks=me.start_ticks - 1)
    assert not is_alive(other)
    assert not exists(other)


def test_a_zombie_exists_but_is_not_alive() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = identify(child.pid)
    os.kill(child.pid, 9)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert exists(process)
    assert not is_alive(process)
    child.wait()
    assert not exists(process)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_pid_of_nobody_is_named(pid: int) -> None:
    with pytest.raises(NoSuchProcess, match=str(pid)):
        identify(pid)


def test_a_name_with_brackets_and_spaces_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "60"])
    try:
        assert is_alive(identify(child.pid))
        assert identify(child.pid).start_ticks > 0
    finally:
        child.kill()
        child.wait()
