"""Who only asks the driver does not wait for it: both ways of driving it have a limit for questions."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ckptctl.command import CommandFailed
from ckptctl.cuda.driver import CheckpointDriver, CudaState
from ckptctl.cuda.interface import open_interface
from ckptctl.cuda.results import CudaSilent
from ckptctl.cuda.utility import open_utility
from support import Job
from support.fake_gpu import FakeGpu

pytestmark = pytest.mark.requires_fake_gpu
_LIMIT_S = 3.0


def asking_interface(machine: FakeGpu) -> CheckpointDriver:
    return open_interface(machine.environment, _LIMIT_S)


def asking_utility(machine: FakeGpu) -> CheckpointDriver:
    return open_utility(f"{machine.bin}:{os.environ['PATH']}", machine.environment, _LIMIT_S)


@pytest.mark.parametrize("opened", [asking_interface, asking_utility])
def test_a_question_that_is_not_answered_is_given_up(
    opened: Callable[[FakeGpu], CheckpointDriver], machine: FakeGpu, train: Callable[..., Job]
) -> None:
    job = train()
    driver = opened(machine)
    try:
        assert driver.state(job.pid) is CudaState.RUNNING
        machine.set_faults("state hang")
        with pytest.raises((CudaSilent, CommandFailed), match="within 3 s"):
            driver.state(job.pid)
    finally:
        driver.close()
    job.wait_for_lines(len(job.lines()) + 3)

    machine.set_faults()
    again = opened(machine)
    assert again.state(job.pid) is CudaState.RUNNING
    again.close()


def test_a_library_that_does_not_start_is_given_up(machine: FakeGpu) -> None:
    machine.set_faults("version hang")
    with pytest.raises(CudaSilent, match="did not start within 3 s"):
        asking_interface(machine)
