"""Connections that were dumped without a lock are known by the images."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.criu.dump import DumpRequest, Leave, dump
from ckptctl.criu.images import read_images
from ckptctl.criu.network import unheld
from ckptctl.criu.options import Option, Options
from ckptctl.criu.program import Criu
from ckptctl.interrupt import Never
from support import Jobs
from support.jobs import python

pytestmark = pytest.mark.requires_criu

CLIENT = """
import socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
time.sleep(600)
"""
ALONE = """
import time
print("ready", flush=True)
time.sleep(600)
"""


def options(lock: str) -> Options:
    return Options((Option("--tcp-established", None, "a test"), Option("--network-lock", lock, "a test")))


def dumped(criu: Criu, pid: int, folders: tuple[Path, Path]) -> Path:
    request = DumpRequest(pid, *folders, tuple(options("skip").dump_words()), Leave.RUNNING)
    dump(criu, request, interrupt=Never(), on_progress=lambda _: None)
    return folders[0]


def test_a_connection_to_the_outside_without_a_lock_is_told(
    program_found: Criu, start_job: Jobs, new_folders: Callable[[], tuple[Path, Path]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = start_job(python(CLIENT, str(server.getsockname()[1])))
        job.wait_for_lines(1)
        images = read_images(dumped(program_found, job.pid, new_folders()))
    assert len(list(unheld(images, options("skip")))) == 1
    assert not list(unheld(images, options("nftables")))


def test_without_connections_there_is_nothing_to_tell(
    program_found: Criu, start_job: Jobs, new_folders: Callable[[], tuple[Path, Path]]
) -> None:
    job = start_job(python(ALONE))
    job.wait_for_lines(1)
    images = read_images(dumped(program_found, job.pid, new_folders()))
    assert not list(unheld(images, options("skip")))
