"""Every shape of process that training jobs have is dumped and restored, with no option given by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from support import CommandLine
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

DUMPABLE = (
    "threads",
    "pipe_child",
    "pipe_outside",
    "socketpair",
    "tcp_server",
    "tcp_self",
    "file_locks",
    "deleted_file --mib 100",
    "shared_memory_objects",
    "timers_signals",
    "event_files",
    "append_log",
    "truncated_log",
    "inotify",
    "terminal --master inside",
    "terminal --master outside",
    "terminal --master none",
    "memory --mib 2048",
    "workers",
    "fifo",
    "seccomp",
    "sessions",
    "udp",
    "unix_server",
    "zombies",
    "renamed_file",
)
Start = Callable[..., AbstractContextManager[Shape]]


@pytest.mark.parametrize("words", DUMPABLE)
def test_a_shape_goes_on_as_if_nothing_had_happened(words: str, start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape(*words.split()) as shape:
        shape.wait_steps(10)
        assert ckptctl.json("check", "--pid", str(shape.pid))["result"]["ready"]
        ckptctl("dump", "--pid", str(shape.pid)).check()
        at_the_dump = shape.steps()
        assert not shape.job.running(), "the job was to end"
        ckptctl("restore", "latest").check()
        shape.wait_steps(at_the_dump + 10)


@pytest.mark.parametrize("words", ["append_log", "truncated_log", "tcp_server", "workers", "terminal --master outside"])
def test_a_shape_saved_while_it_runs_goes_on_from_there(words: str, start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape(*words.split()) as shape:
        shape.wait_steps(10)
        ckptctl("dump", "--pid", str(shape.pid), "--leave-running").check()
        at_the_dump = shape.steps()
        shape.wait_steps(at_the_dump + 20)
        shape.job.kill()
        later = shape.steps()
        ckptctl("restore", "latest").check()
        assert shape.steps() < later, "the log was put back to the dump"
        shape.wait_steps(later + 5)


@pytest.mark.parametrize("words", ["append_log", "tcp_server", "workers"])
def test_five_times_over(words: str, start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape(*words.split()) as shape:
        for _ in range(5):
            steps = shape.wait_steps(shape.steps() + 5)
            ckptctl("dump", "--pid", str(shape.pid), "--run", "again").check()
            assert shape.steps() >= steps
            ckptctl("restore", "again/latest").check()
        shape.wait_steps(shape.steps() + 5)
        assert len(ckptctl.json("list")["result"]) == 5
