"""Real restores: whose child the root is, its exit status, its pipes, its session, and stopping half-way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ckptctl.criu.dump import DumpRequest, Leave, dump
from ckptctl.criu.failures import CriuRestoreFailed
from ckptctl.criu.images import read_images
from ckptctl.criu.program import Criu
from ckptctl.criu.restore import InheritedFd, Parent, RestoreRequest, restore
from ckptctl.criu.running import find_running
from ckptctl.interrupt import Interrupted, Never
from support import Jobs
from support.jobs import Job, python, state
from support.waiting import wait_for

pytestmark = pytest.mark.requires_criu

COUNTER = """
import os, sys, threading, time
memory = bytearray(os.urandom(1 << 20) * int(sys.argv[1]))
child = os.fork() if len(sys.argv) > 2 else -1
if child == 0:
    time.sleep(1e6)
threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
for k in range(100000):
    print(k, flush=True)
    if os.path.exists("end"):
        os._exit(7)
    time.sleep(0.01)
"""


@pytest.fixture
def dumped(program_found: Criu, new_folders: Callable[[], tuple[Path, Path]]) -> Callable[..., RestoreRequest]:
    """Dump a job, end it, wait until its numbers are free."""

    def make(job: Job, *options: str, end: bool = True) -> RestoreRequest:
        images, logs = new_folders()
        request = DumpRequest(job.pid, images, logs, options, Leave.STOPPED if end else Leave.RUNNING)
        dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
        if end:
            job.kill()
            job.wait_gone()
        return RestoreRequest(job.pid, images, logs, options)

    return make


def with_parent(request: RestoreRequest, parent: Parent) -> RestoreRequest:
    return RestoreRequest(request.root_pid, request.images, request.logs, request.options, parent)


def stat_fields(pid: int) -> list[int]:
    """ppid, pgid, sid."""
    return [int(word) for word in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:4]]


def test_as_a_child_its_status_can_be_waited_for(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    job = start_job(python(COUNTER, "1"), append=True)
    job.wait_for_lines(5)
    request = with_parent(dumped(job), Parent.CALLER)
    count = len(job.lines())
    result = restore(program_found, request, interrupt=Never())
    assert result.root.pid == job.pid
    assert stat_fields(job.pid) == [os.getpid(), job.pid, job.pid]
    assert result.stats.pages_restored > 0
    job.wait_for_lines(count + 5)
    assert job.lines() == [str(k) for k in range(len(job.lines()))]
    (job.folder / "end").touch()
    _, status = os.waitpid(job.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_detached_it_is_a_child_of_somebody_else(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    job = start_job(python(COUNTER, "1"), append=True)
    job.wait_for_lines(5)
    result = restore(program_found, dumped(job), interrupt=Never())
    assert stat_fields(result.root.pid)[0] != os.getpid()
    assert job.running()


def test_dumped_and_restored_again_and_again(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    job = start_job(python(COUNTER, "1", "child"), append=True)
    for _ in range(3):
        job.wait_for_lines(len(job.lines()) + 5)
        restore(program_found, dumped(job), interrupt=Never())
    lines = job.wait_for_lines(len(job.lines()) + 5)
    assert lines == [str(k) for k in range(len(lines))]


def test_a_pipe_that_led_outside_is_given_again(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    code = "import os, time\nos.mkfifo\nwhile True:\n  os.write(9, b'x')\n  print(1, flush=True)\n  time.sleep(0.01)"
    first_reading, first_writing = os.pipe()
    command = ["sh", "-c", f'exec 9>/proc/{os.getpid()}/fd/{first_writing}; exec "$@"', "sh", *python(code)]
    job = start_job(command, append=True)
    job.wait_for_lines(3)
    request = dumped(job)
    os.close(first_writing)
    os.close(first_reading)
    (pipe,) = read_images(request.images).open_files.external_pipes
    reading, writing = os.pipe()
    inherit = (InheritedFd(writing, pipe.key),)
    given = RestoreRequest(request.root_pid, request.images, request.logs, inherit=inherit)
    restore(program_found, given, interrupt=Never())
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    job.kill()
    while os.read(reading, 1 << 16):
        pass
    os.close(reading)


def test_a_taken_number_is_explained(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    job = start_job(python(COUNTER, "1"), append=True)
    job.wait_for_lines(5)
    request = dumped(job, end=False)
    with pytest.raises(CriuRestoreFailed) as caught:
        restore(program_found, request, interrupt=Never())
    assert caught.value.failure.code == "criu.pid-taken"
    assert str(job.pid) in caught.value.message
    assert job.running(), "the process that has the number is not ours to end"


def test_a_shell_job_takes_the_session_of_its_caller(
    program_found: Criu, new_folders: Callable[[], tuple[Path, Path]], start_job: Jobs
) -> None:
    job = start_job(python("import subprocess, sys\nsubprocess.run(sys.argv[1:])", *python(COUNTER, "1")), append=True)
    job.wait_for_lines(5)
    inner = max(job.processes())
    images, logs = new_folders()
    request = DumpRequest(inner, images, logs, ("--shell-job",))
    dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
    job.kill()
    job.wait_gone()
    again = RestoreRequest(inner, images, logs, ("--shell-job",), own_session=False)
    restore(program_found, again, interrupt=Never())
    assert stat_fields(inner)[2] == os.getsid(0)


class After:
    """Asks to stop when so many seconds have passed since it was made."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() >= self._at:
            raise Interrupted("asked to stop")


@pytest.mark.parametrize("parent", list(Parent))
def test_stopped_at_any_moment_nothing_is_left(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest], parent: Parent
) -> None:
    job = start_job(python(COUNTER, "512", "child"), append=True)
    job.wait_for_lines(5)
    request = with_parent(dumped(job), parent)
    restored = 0
    for moment in range(12):
        try:
            restore(program_found, request, interrupt=After(0.03 * moment))
        except Interrupted:
            assert job.processes() == []
            assert find_running(request.images) == ()
        else:
            restored += 1
            job.kill()
        wait_for(lambda: is_free(job.pid), 30, "the number is free again")
    assert restored < 12
    restore(program_found, request, interrupt=Never())
    count = len(job.lines())
    job.wait_for_lines(count + 5)


def is_free(pid: int) -> bool:
    """Whether neither a process nor a group has the number any more, not even zombies."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return state(pid) == "X"
    return False


def test_a_criu_that_is_killed_leaves_nothing(
    program_found: Criu, start_job: Jobs, dumped: Callable[..., RestoreRequest]
) -> None:
    job = start_job(python(COUNTER, "512", "child"), append=True)
    job.wait_for_lines(5)
    request = dumped(job)

    class Killer:
        """Kills criu while it restores."""

        def check(self) -> None:
            if job.processes() or len(find_running(request.images)) > 1:
                os.kill(min(find_running(request.images), default=0), signal.SIGKILL)

    with pytest.raises(CriuRestoreFailed):
        restore(program_found, request, interrupt=Killer())
    assert job.processes() == []
    assert find_running(request.images) == ()
