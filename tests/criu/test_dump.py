"""Real dumps of real processes: left running, left stopped, failed, and stopped half-way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.criu.dump import DumpRequest, Leave, dump, written_bytes
from ckptctl.criu.failures import CriuDumpFailed
from ckptctl.criu.images import read_images
from ckptctl.criu.network import release_connections
from ckptctl.criu.program import Criu
from ckptctl.criu.running import cancel, find_running
from ckptctl.interrupt import Interrupted, Never
from support import Jobs
from support.jobs import Job, python, state
from support.waiting import wait_for

pytestmark = pytest.mark.requires_criu
TCP = ("--tcp-established", "--network-lock", "nftables")

# Counts, and tells when one of the things that a dump touches is not as it was: memory, a TCP connection, a thread.
WORKER = """
import os, socket, sys, threading, time, zlib
size = int(sys.argv[1]) << 20
memory = bytearray(os.urandom(1 << 20) * int(sys.argv[1]))
sums = [zlib.crc32(memory[begin : begin + (1 << 20)]) for begin in range(0, size, 1 << 20)]
server = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(server.getsockname())
far, _ = server.accept()
def echo():
    while True:
        far.sendall(far.recv(100))
threading.Thread(target=echo, daemon=True).start()
k = 0
while True:
    text = str(k).encode()
    near.sendall(text)
    assert near.recv(100) == text
    begin = (k * 7919 % len(sums)) << 20
    assert zlib.crc32(memory[begin : begin + (1 << 20)]) == sums[begin >> 20]
    print(k, flush=True)
    k += 1
    time.sleep(0.005)
"""


class After:
    """Asks to stop when so many seconds have passed since it was made."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() >= self._at:
            raise Interrupted("asked to stop")


def worker(start_job: Jobs, mebibytes: int) -> Job:
    job = start_job(python(WORKER, str(mebibytes)))
    job.wait_for_lines(3)
    return job


def runs_on(job: Job) -> bool:
    """Whether the job goes on to count, with no complaint."""
    before = len(job.lines())
    lines = job.wait_for_lines(before + 5, timeout_s=10)
    return lines == [str(k) for k in range(len(lines))] and not job.stderr.read_text()


@pytest.fixture
def request_for(new_folders: Callable[[], tuple[Path, Path]]) -> Callable[..., DumpRequest]:
    def make(job: Job, *options: str, leave: Leave = Leave.STOPPED) -> DumpRequest:
        images, logs = new_folders()
        return DumpRequest(job.pid, images, logs, options, leave)

    return make


def test_left_running(program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]) -> None:
    job = worker(start_job, 64)
    request = request_for(job, *TCP, leave=Leave.RUNNING)
    told: list[int] = []
    stats = dump(program_found, request, interrupt=Never(), on_progress=told.append)
    assert runs_on(job)
    assert told == sorted(told)
    assert written_bytes(request.images) == stats.pages_written * 4096 >= 64 << 20
    assert read_images(request.images).root_pid == job.pid


def test_left_stopped_and_continued_with_its_connections(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    job = worker(start_job, 8)
    request = request_for(job, *TCP)
    dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
    assert state(job.pid) == "T"
    images = read_images(request.images)
    for _ in range(2):
        release_connections(images, {job.pid: job.pid})
    job.signal(signal.SIGCONT)
    assert runs_on(job)


def test_without_release_the_connections_are_lost(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    """Why release_connections exists; if this fails one day, criu does it itself."""
    job = worker(start_job, 8)
    request = request_for(job, *TCP)
    dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
    try:
        job.signal(signal.SIGCONT)
        wait_for(lambda: "PermissionError" in job.stderr.read_text(), 10, "EPERM of a socket in repair mode")
    finally:
        release_connections(read_images(request.images), {})


def test_a_failure_is_explained_and_the_job_runs_on(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    job = worker(start_job, 8)
    request = request_for(job)
    with pytest.raises(CriuDumpFailed) as caught:
        dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
    assert caught.value.failure.code == "criu.tcp-connected"
    assert caught.value.details["criu_log"] == str(request.logs / "dump.log")
    assert runs_on(job)


def test_the_output_is_explained_where_there_is_no_log(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    job = worker(start_job, 8)
    request = request_for(job)
    request.images.rmdir()
    with pytest.raises(CriuDumpFailed) as caught:
        dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
    assert caught.value.failure.code == "criu.image-folder"


def test_cancelled_at_any_moment_the_job_runs_on(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    """256 MiB, stopped at moments from before criu begins until it has ended."""
    job = worker(start_job, 256)
    began = time.monotonic()
    dump(program_found, request_for(job, *TCP, leave=Leave.RUNNING), interrupt=Never(), on_progress=lambda _: None)
    whole_s = time.monotonic() - began
    seen = set()
    for moment in range(14):
        request = request_for(job, *TCP)
        asked = After(whole_s * moment / 12)
        written: list[int] = []
        try:
            dump(program_found, request, interrupt=asked, on_progress=written.append)
        except Interrupted:
            seen.add(max(written, default=0) > 1 << 20)
        assert find_running(request.images) == ()
        if state(job.pid) == "T":
            # It had ended before it was asked, or wrote its last image.
            release_connections(read_images(request.images), {job.pid: job.pid})
            job.signal(signal.SIGCONT)
        assert runs_on(job), f"at moment {moment}"
        for path in request.images.iterdir():
            path.unlink()
    assert seen == {True, False}, "some were stopped before the pages, and some amid them"


def test_an_error_of_the_caller_stops_it_likewise(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    job = worker(start_job, 512)

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    request = request_for(job, *TCP)
    with pytest.raises(KeyboardInterrupt):
        dump(program_found, request, interrupt=Never(), on_progress=fail)
    assert find_running(request.images) == ()
    assert runs_on(job)


def test_another_process_can_find_and_cancel_it(
    program_found: Criu, start_job: Jobs, request_for: Callable[..., DumpRequest]
) -> None:
    job = worker(start_job, 1024)
    request = request_for(job, *TCP)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            dump(program_found, request, interrupt=Never(), on_progress=lambda _: None)
        except CriuDumpFailed as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: written_bytes(request.images) > 1 << 20, 30, "the first pages")
    found = find_running(request.images)
    assert len(found) == 1
    cancel(found[0])
    thread.join(30)
    assert len(caught) == 1, "criu failed: it could write neither images nor its log any more"
    assert runs_on(job)


def test_cancelling_what_is_gone_is_no_error(start_job: Jobs) -> None:
    job = start_job(python("pass"))
    assert job.wait_status(10) == 0
    wait_for(lambda: state(job.pid) == "X", 10)
    cancel(job.pid)


def test_nobody_runs_for_a_folder_of_another_name(tmp_path: Path, start_job: Jobs) -> None:
    job = start_job(["sh", "-c", 'sleep 60; true "$@"', "sh", "-D", os.fspath(tmp_path / "images")])
    wait_for(lambda: find_running(tmp_path / "images"), 10, "its command line")
    assert job.pid in find_running(tmp_path / "images")
    assert find_running(tmp_path) == ()
    assert find_running(tmp_path / "image") == ()
