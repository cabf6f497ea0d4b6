"""PID namespaces of their own: beside the original, in and out again, signals, statuses, and stopping half-way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.criu.dump import DumpRequest, Leave, dump
from ckptctl.criu.failures import CriuRestoreFailed
from ckptctl.criu.namespaces import (
    NamespaceResult,
    enter_namespaces_prefix,
    pid_inside,
    restore_in_new_pid_namespace,
)
from ckptctl.criu.program import Criu
from ckptctl.criu.restore import RestoreRequest, restore
from ckptctl.criu.running import find_running
from ckptctl.interrupt import Interrupted, Never
from ckptctl.process.control import end
from support import Jobs
from support.jobs import Job, python, state
from support.waiting import wait_for

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_namespaces]

# Writes where it is told to: two copies of one job must not mix their lines.
COUNTER = """
import os, signal, sys, threading, time
signal.signal(signal.SIGUSR1, lambda *_: print("USR1", flush=True))
threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
if os.fork() == 0:
    while not os.path.exists("end"):
        time.sleep(0.01)
    os._exit(0)
for k in range(100000):
    print(k, os.getpid(), flush=True)
    if os.path.exists("end"):
        os._exit(7)
    time.sleep(0.01)
"""


@pytest.fixture
def counter(start_job: Jobs) -> Job:
    job = start_job(python(COUNTER), append=True)
    job.wait_for_lines(5)
    return job


@pytest.fixture
def dumped(program_found: Criu, new_folders: Callable[[], tuple[Path, Path]]) -> Callable[..., RestoreRequest]:
    """Dump the tree of a root, whose number is the one seen from here."""

    def make(pid: int, leave: Leave = Leave.RUNNING) -> RestoreRequest:
        images, logs = new_folders()
        inside = pid_inside(pid)
        request = DumpRequest(inside, images, logs, (), leave, prefix=enter_namespaces_prefix(pid), outer_pid=pid)
        dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
        return RestoreRequest(inside, images, logs)

    return make


def grows(job: Job) -> None:
    job.wait_for_lines(len(job.lines()) + 5)


def ended(result: NamespaceResult) -> None:
    end([result.init])
    result.child.wait()
    result.child.close()


def test_beside_the_running_original(program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]) -> None:
    result = restore_in_new_pid_namespace(program_found, dumped(counter.pid), interrupt=Never())
    assert result.root.pid != counter.pid
    assert pid_inside(result.root.pid) == counter.pid
    assert pid_inside(result.init.pid) == 1
    assert result.stats.pages_restored > 0
    counter.signal(signal.SIGSTOP)
    grows(counter)
    assert state(result.root.pid) in "RS"
    ended(result)
    assert state(result.root.pid) == "X"


def test_signals_and_the_status_are_passed_on(
    program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]
) -> None:
    request = dumped(counter.pid, Leave.STOPPED)
    counter.kill()
    result = restore_in_new_pid_namespace(program_found, request, interrupt=Never())
    os.kill(result.init.pid, signal.SIGUSR1)
    wait_for(lambda: "USR1" in counter.lines(), 10, "the signal")
    (counter.folder / "end").touch()
    assert result.child.wait() == 7
    result.child.close()
    assert counter.processes() == []


def test_the_signal_that_ended_the_root_is_told(
    program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]
) -> None:
    request = dumped(counter.pid, Leave.STOPPED)
    counter.kill()
    result = restore_in_new_pid_namespace(program_found, request, interrupt=Never())
    end([result.root])
    time.sleep(0.1)
    assert state(result.init.pid) == "S", "a child of the root lives on, and process 1 with it"
    (counter.folder / "end").touch()
    assert result.child.wait() == 128 + signal.SIGKILL
    result.child.close()


def test_in_and_out_and_in_again(program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]) -> None:
    root = counter.pid
    request = dumped(root, Leave.STOPPED)
    counter.kill()
    counter.wait_gone()
    for new in (True, True, False, True, False):
        if new:
            result = restore_in_new_pid_namespace(program_found, request, interrupt=Never())
            root = result.root.pid
        else:
            root = restore(program_found, request, interrupt=Never()).root.pid
        grows(counter)
        request = dumped(root, Leave.STOPPED)
        if new:
            assert state(root) == "T"
            ended(result)
        counter.kill()
        counter.wait_gone()
        assert request.root_pid == counter.pid
    assert counter.lines() == [f"{k} {counter.pid}" for k in range(len(counter.lines()))]


def test_a_failure_is_explained_and_leaves_nothing(
    program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]
) -> None:
    request = dumped(counter.pid, Leave.STOPPED)
    counter.kill()
    (request.images / "files.img").write_bytes(b"no image")
    with pytest.raises(CriuRestoreFailed) as caught:
        restore_in_new_pid_namespace(program_found, request, interrupt=Never())
    assert caught.value.failure.code == "criu.image-damaged"
    assert find_running(request.images) == ()


def test_stopped_at_any_moment_nothing_is_left(
    program_found: Criu, counter: Job, dumped: Callable[..., RestoreRequest]
) -> None:
    request = dumped(counter.pid, Leave.STOPPED)
    counter.kill()

    class After:
        def __init__(self, seconds: float) -> None:
            self._at = time.monotonic() + seconds

        def check(self) -> None:
            if time.monotonic() >= self._at:
                raise Interrupted("asked to stop")

    stopped = 0
    for moment in range(10):
        try:
            ended(restore_in_new_pid_namespace(program_found, request, interrupt=After(0.02 * moment)))
        except Interrupted:
            stopped += 1
        assert find_running(request.images) == ()
        assert counter.processes() == []
    assert stopped > 0


def test_a_dump_inside_is_cancelled_like_any_other(
    program_found: Criu,
    start_job: Jobs,
    dumped: Callable[..., RestoreRequest],
    new_folders: Callable[[], tuple[Path, Path]],
) -> None:
    big = "import os, time\nb = bytearray(os.urandom(1 << 20) * 512)\nfor k in range(9999):\n  print(k, flush=True)\n"
    job = start_job(python(big + "  time.sleep(0.01)"), append=True)
    job.wait_for_lines(3)
    request = dumped(job.pid, Leave.STOPPED)
    job.kill()
    result = restore_in_new_pid_namespace(program_found, request, interrupt=Never())
    images, logs = new_folders()
    pid = result.root.pid
    again = DumpRequest(pid_inside(pid), images, logs, prefix=enter_namespaces_prefix(pid), outer_pid=pid)

    def stop_amid_the_pages(written_bytes: int) -> None:
        if written_bytes:
            raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        dump(program_found, again, interrupt=Never(), on_progress=stop_amid_the_pages)
    assert find_running(images) == ()
    grows(job)
    ended(result)


def test_there_is_nothing_to_enter_for_a_process_of_ours() -> None:
    assert enter_namespaces_prefix(os.getpid()) == ()
    assert pid_inside(os.getpid()) == os.getpid()


def test_the_process_1_of_a_namespace_says_what_it_lacks(tmp_path: Path) -> None:
    """A command that cannot be run has the status that a shell would give it."""
    import subprocess
    import sys

    from ckptctl.criu import namespace_init

    reading, writing = os.pipe()
    argv = [sys.executable, "-I", "-S", namespace_init.__file__, str(writing), "1", str(tmp_path / "none")]
    done = subprocess.run(argv, pass_fds=[writing], stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert os.read(reading, 16) == b"127"
    os.close(reading)
    assert done.returncode == 127
    assert "none: No such file" in done.stderr
