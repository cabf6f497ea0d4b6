"""Fixtures of the CUDA tests: a machine with fake GPUs, and both ways of driving them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptctl.cuda.driver import CheckpointDriver
from support import Job, Jobs
from support.fake_gpu import FakeGpu, fake_gpu, interface_on, utility_on

Training = Callable[..., Job]


@pytest.fixture
def branch() -> int:
    """The driver's branch; tests parametrize it."""
    return 580


@pytest.fixture
def machine(tmp_path: Path, branch: int) -> Iterator[FakeGpu]:
    """A machine with one fake GPU and a driver of `branch`."""
    with fake_gpu(tmp_path / "gpu", branch) as found:
        yield found


@pytest.fixture(params=[interface_on, utility_on], ids=["interface", "utility"])
def driver(request: pytest.FixtureRequest, machine: FakeGpu) -> Iterator[CheckpointDriver]:
    """Both ways of driving the machine, one after the other."""
    opened: CheckpointDriver = request.param(machine)
    yield opened
    opened.close()


@pytest.fixture
def train(start_job: Jobs, machine: FakeGpu) -> Training:
    """`train("--bytes", "4096")` starts the training program, endless, and waits until it is at work."""

    def start(*options: str) -> Job:
        job = start_job(machine.training(1_000_000, *options), environment=machine.environment)
        job.wait_for_lines(3)
        return job

    return start
