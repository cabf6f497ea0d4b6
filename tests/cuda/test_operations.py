"""Whole trees of CUDA processes: found, locked, checkpointed, and brought back to running from every state."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.cuda.driver import Action, CheckpointDriver, CudaState
from ckptctl.cuda.operations import (
    bring_to_running,
    checkpoint_all,
    find_cuda_pids,
    lock_all,
    restore_all,
    unlock_all,
)
from ckptctl.cuda.results import (
    CudaBusy,
    CudaHelperLost,
    CudaLost,
    CudaProcessGone,
    CudaStuck,
    CudaTargetStopped,
    CudaUnsupported,
)
from support import Job, Jobs, python, wait_for
from support.fake_gpu import Card, FakeGpu, interface_on

pytestmark = pytest.mark.requires_fake_gpu
Training = Callable[..., Job]
TIMEOUT_MS = 10_000


def states(driver: CheckpointDriver, *jobs: Job) -> list[CudaState]:
    return [driver.state(job.pid) for job in jobs]


def test_only_processes_with_cuda_state_are_found_in_the_order_given(
    driver: CheckpointDriver, train: Training, start_job: Jobs
) -> None:
    first, second = train(), train()
    without = start_job(python("import time; time.sleep(100)"))
    zombie = start_job(["true"], reap=False)
    wait_for(lambda: not zombie.running(), 5)
    found = find_cuda_pids(driver, [second.pid, without.pid, zombie.pid, first.pid])
    assert found == (second.pid, first.pid)


def test_a_tree_goes_away_and_comes_back(driver: CheckpointDriver, train: Training, machine: FakeGpu) -> None:
    jobs = (train(), train())
    pids = [job.pid for job in jobs]
    timings = lock_all(driver, pids, TIMEOUT_MS) + checkpoint_all(driver, pids, workers=2)
    assert states(driver, *jobs) == [CudaState.CHECKPOINTED] * 2
    assert machine.used_bytes(Card()) == 0
    timings += restore_all(driver, pids, workers=2) + unlock_all(driver, pids)
    assert states(driver, *jobs) == [CudaState.RUNNING] * 2
    actions = (Action.LOCK, Action.CHECKPOINT, Action.RESTORE, Action.UNLOCK)
    assert [(timing.pid, timing.action) for timing in timings] == [(pid, act) for act in actions for pid in pids]
    assert all(timing.seconds > 0 for timing in timings)
    for job in jobs:
        job.wait_for_lines(len(job.lines()) + 2)


def test_checkpoints_run_side_by_side(driver: CheckpointDriver, train: Training, machine: FakeGpu) -> None:
    pids = [train().pid for _ in range(3)]
    lock_all(driver, pids, TIMEOUT_MS)
    machine.set_faults("checkpoint delay=800")
    began = time.monotonic()
    timings = checkpoint_all(driver, pids, workers=3)
    assert time.monotonic() - began < 2.2
    assert all(timing.seconds >= 0.8 for timing in timings)


def test_if_one_process_cannot_be_locked_none_stays_locked(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    jobs = (train(), train(), train())
    machine.set_faults(f"lock busy {jobs[1].pid}")
    with pytest.raises(CudaBusy, match=str(jobs[1].pid)):
        lock_all(driver, [job.pid for job in jobs], 600)
    assert states(driver, *jobs) == [CudaState.RUNNING] * 3


def test_processes_that_hold_each_other_up_are_locked_in_a_later_try(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    jobs = (train(), train())
    machine.set_faults(f"lock 600 {jobs[0].pid}")
    # Two tries fail at once; the fault is gone before the third.
    tries = []
    lock = driver.lock

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(driver, name)

        def lock(self, pid: int, timeout_ms: int) -> None:
            tries.append((pid, timeout_ms))
            if len(tries) == 5:
                machine.set_faults()
            lock(pid, timeout_ms)

    lock_all(Counting(), [job.pid for job in jobs], 9000)  # type: ignore[arg-type]
    assert states(driver, *jobs) == [CudaState.LOCKED] * 2
    assert len(tries) == 6
    assert sorted(timeout_ms for _, timeout_ms in tries) == [1000, 1000, 2000, 2000, 6000, 6000]


def test_a_failed_checkpoint_lets_the_others_come_to_their_end(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    jobs = (train(), train())
    pids = [job.pid for job in jobs]
    lock_all(driver, pids, TIMEOUT_MS)
    machine.set_faults(f"checkpoint 801 {pids[0]}")
    with pytest.raises(CudaUnsupported, match=str(pids[0])):
        checkpoint_all(driver, pids, workers=2)
    assert states(driver, *jobs) == [CudaState.LOCKED, CudaState.CHECKPOINTED]
    for job in jobs:
        bring_to_running(driver, job.pid, limit_s=10)
        job.wait_for_lines(len(job.lines()) + 2)


@pytest.mark.parametrize(
    ("before", "undone"),
    [
        ((), []),
        (("lock",), [Action.UNLOCK]),
        (("lock", "checkpoint"), [Action.RESTORE, Action.UNLOCK]),
        (("lock", "checkpoint", "restore"), [Action.UNLOCK]),
    ],
)
def test_a_process_is_brought_back_from_every_state(
    before: tuple[str, ...], undone: list[Action], driver: CheckpointDriver, train: Training
) -> None:
    job = train()
    for action in before:
        driver.lock(job.pid, TIMEOUT_MS) if action == "lock" else getattr(driver, action)(job.pid)
    timings = bring_to_running(driver, job.pid, limit_s=10)
    assert [timing.action for timing in timings] == undone
    job.wait_for_lines(len(job.lines()) + 2)
    assert bring_to_running(driver, job.pid, limit_s=10) == ()


def test_what_the_driver_has_given_up_is_said_to_be_lost(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    machine.set_faults("restore fail")
    with pytest.raises(CudaLost, match=str(job.pid)) as caught:
        bring_to_running(driver, job.pid, limit_s=10)
    assert caught.value.outcome == f"Process {job.pid} is lost."
    assert driver.state(job.pid) is CudaState.FAILED


def test_a_restore_without_room_on_the_gpu_loses_the_process(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    machine.set_cards(Card(total_bytes=4096))
    with pytest.raises(CudaLost):
        bring_to_running(driver, job.pid, limit_s=10)


def test_a_driver_that_says_yes_and_does_nothing_is_found_out(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    machine.set_faults("restore lie")
    with pytest.raises(CudaStuck, match="stays checkpointed"):
        bring_to_running(driver, job.pid, limit_s=10)


def test_a_stopped_or_ended_process_is_told_apart(driver: CheckpointDriver, train: Training) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    job.signal(signal.SIGSTOP)
    wait_for(lambda: not job.running(), 5)
    with pytest.raises(CudaTargetStopped):
        bring_to_running(driver, job.pid, limit_s=1)
    job.kill()
    job.wait_gone()
    with pytest.raises(CudaProcessGone):
        bring_to_running(driver, job.pid, limit_s=1)


def agent_of_this_process() -> int:
    """The pid of the one agent that this process has started."""
    agents = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"ckptctl.cuda.agent" in (folder / "cmdline").read_bytes():
                agents.append(int(folder.name))
        except OSError:
            continue
    (agent,) = agents
    return agent


def test_after_the_agent_was_killed_another_one_takes_over(train: Training, machine: FakeGpu) -> None:
    job = train()
    driver = interface_on(machine)
    driver.lock(job.pid, TIMEOUT_MS)
    os.kill(agent_of_this_process(), signal.SIGKILL)
    wait_for(lambda: driver._agent.ended, 5)  # type: ignore[attr-defined]
    bring_to_running(driver, job.pid, limit_s=10)
    driver.close()
    job.wait_for_lines(len(job.lines()) + 2)


def test_an_agent_killed_in_an_operation_is_reported_with_what_became_of_the_process(
    train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver = interface_on(machine)
    driver.lock(job.pid, TIMEOUT_MS)
    machine.set_faults("checkpoint delay=500")
    agent = agent_of_this_process()

    def kill_it() -> None:
        wait_for(lambda: machine.doing(job.pid) == "checkpoint", 10)
        os.kill(agent, signal.SIGKILL)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(CudaHelperLost, match="SIGKILL"):
        driver.checkpoint(job.pid)
    killer.join()
    with pytest.raises(CudaLost):
        bring_to_running(driver, job.pid, limit_s=10)
    driver.close()
