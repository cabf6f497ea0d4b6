"""A job that counts, dumped and restored through the command line; judged by its log alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs, wait_for
from support.fake_gpu import Card, FakeGpu, fake_gpu
from support.jobs import state
from support.shapes import Shape, started

CutOff = Callable[..., subprocess.CompletedProcess[str]]
Paused = Callable[..., subprocess.Popen[str]]
Start = Callable[..., AbstractContextManager[Shape]]
_PROGRAM = Path(__file__).parents[1] / "support" / "cut_off.py"


@pytest.fixture
def start_shape(start_job: Jobs) -> Start:
    """`with start_shape("pipe_child", seconds=60) as shape:` starts a shape of tests/shapes."""

    def start(name: str, *words: str, seconds: float = 120) -> AbstractContextManager[Shape]:
        return started(start_job, name, *words, seconds=seconds)

    return start


@pytest.fixture
def counting(start_shape: Start) -> Iterator[Shape]:
    """A plain job with a little memory that appends to its log."""
    with start_shape("append_log") as shape:
        shape.wait_steps(5)
        yield shape


@pytest.fixture
def cut_off(ckptctl: CommandLine) -> CutOff:
    """`cut_off("SIGKILL", "started", "freeze", "dump", ...)`: a ckptctl that gets a signal at that moment."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, _PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=ckptctl.environment,
            timeout=120,
            start_new_session=True,
        )

    return run


@pytest.fixture
def paused(ckptctl: CommandLine) -> Iterator[Paused]:
    """`paused("started", "commit", "dump", ...)`: a ckptctl that stops itself there, until it gets SIGCONT."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, _PROGRAM, "SIGSTOP", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ckptctl.environment,
            start_new_session=True,
        )
        processes.append(process)
        wait_for(lambda: state(process.pid) == "T" or process.poll() is not None, 60, "the moment to pause")
        assert process.returncode is None, process.communicate()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def branch() -> int:
    """The branch of NVIDIA's driver; tests parametrize it."""
    return 580


@pytest.fixture
def gpu(tmp_path: Path, ckptctl: CommandLine, branch: int) -> Iterator[FakeGpu]:
    """A machine with one GPU and a driver of `branch`; ckptctl runs on it."""
    with fake_gpu(tmp_path / "gpu", branch) as machine:
        ckptctl.environment.update(machine.environment)
        yield machine


@pytest.fixture
def train(gpu: FakeGpu, start_job: Jobs) -> Callable[..., Job]:
    """`train("--bytes", "4096")` starts the training program on the fake GPU, endless, and waits for some steps."""

    def start(*options: str) -> Job:
        job = start_job(gpu.training(1_000_000, *options), environment=gpu.environment)
        job.wait_for_lines(5)
        return job

    return start


@pytest.fixture
def assert_undisturbed(gpu: FakeGpu) -> Callable[[Job], None]:
    """`assert_undisturbed(job)`: it goes on, and its log is that of a run to which nothing was done; ends the job."""

    def check(job: Job) -> None:
        gpu.set_faults()
        job.wait_for_lines(len(job.lines()) + 5)
        job.kill()
        lines = job.lines()
        gpu.set_cards(Card())
        twin = [*gpu.training(len(lines), "--pause", "0")]
        done = subprocess.run(twin, env={**os.environ, **gpu.environment}, capture_output=True, text=True, check=True)
        assert lines == done.stdout.splitlines()

    return check
