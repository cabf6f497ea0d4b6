"""What every way of driving the checkpoint interface does alike, on drivers of several branches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptctl.cuda.driver import CheckpointDriver, CudaState, GpuPair
from ckptctl.cuda.results import (
    CudaBadMap,
    CudaBusy,
    CudaError,
    CudaNotPermitted,
    CudaOutOfMemory,
    CudaProcessGone,
    CudaRestoreRefused,
    CudaTargetStopped,
    CudaUnavailable,
    CudaUnsupported,
    CudaWrongState,
    NotCudaProcess,
)
from support import Job, Jobs, python, wait_for
from support.fake_gpu import Card, FakeGpu

pytestmark = pytest.mark.requires_fake_gpu
Training = Callable[..., Job]
BRANCHES = (570, 580, 590, 610)
TIMEOUT_MS = 10_000


def goes_on(job: Job) -> bool:
    """Whether the program makes progress."""
    job.wait_for_lines(len(job.lines()) + 2)
    return True


def stands_still(job: Job) -> bool:
    """Whether the program waits in a CUDA call."""
    time.sleep(0.1)
    count = len(job.lines())
    time.sleep(0.2)
    return len(job.lines()) == count


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_process_goes_through_all_states_and_back(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    assert driver.state(job.pid) is CudaState.RUNNING
    driver.lock(job.pid, TIMEOUT_MS)
    assert driver.state(job.pid) is CudaState.LOCKED
    assert stands_still(job)
    assert machine.used_bytes(Card()) == 1 << 20
    driver.checkpoint(job.pid)
    assert driver.state(job.pid) is CudaState.CHECKPOINTED
    assert machine.used_bytes(Card()) == 0
    driver.restore(job.pid)
    assert driver.state(job.pid) is CudaState.LOCKED
    assert machine.used_bytes(Card()) == 1 << 20
    assert stands_still(job)
    driver.unlock(job.pid)
    assert driver.state(job.pid) is CudaState.RUNNING
    assert goes_on(job)


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_other_transition_is_refused_and_changes_nothing(driver: CheckpointDriver, train: Training) -> None:
    pid = train().pid
    for action in (driver.checkpoint, driver.restore, driver.unlock):
        with pytest.raises(CudaWrongState, match=str(pid)):
            action(pid)
        assert driver.state(pid) is CudaState.RUNNING
    driver.lock(pid, TIMEOUT_MS)
    with pytest.raises(CudaWrongState):
        driver.lock(pid, TIMEOUT_MS)
    with pytest.raises(CudaWrongState):
        driver.restore(pid)
    driver.checkpoint(pid)
    for action in (driver.checkpoint, driver.unlock):
        with pytest.raises(CudaWrongState):
            action(pid)
    assert driver.state(pid) is CudaState.CHECKPOINTED


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_lock_waits_for_work_that_was_submitted_and_gives_up_in_time(
    driver: CheckpointDriver, machine: FakeGpu, start_job: Jobs
) -> None:
    code = (
        "import ctypes, time; cuda = ctypes.CDLL('libcuda.so.1'); assert cuda.cuInit(0) == 0\n"
        "assert cuda.fakegpuSubmit(800) == 0; print('submitted', flush=True)\n"
        "while True: time.sleep(0.01); assert cuda.cuCtxSynchronize() == 0; print('done', flush=True)\n"
    )
    job = start_job(python(code), environment=machine.environment)
    job.wait_for_lines(1)
    with pytest.raises(CudaBusy):
        driver.lock(job.pid, 100)
    assert driver.state(job.pid) is CudaState.RUNNING
    assert job.lines() == ["submitted"]
    driver.lock(job.pid, TIMEOUT_MS)
    assert driver.state(job.pid) is CudaState.LOCKED


@pytest.mark.parametrize("branch", BRANCHES)
def test_cuda_processes_are_known_by_their_restore_thread(
    driver: CheckpointDriver, train: Training, start_job: Jobs
) -> None:
    job = train()
    thread = driver.restore_thread(job.pid)
    assert thread != job.pid
    assert Path(f"/proc/{job.pid}/task/{thread}").exists()
    without = start_job(python("import time; time.sleep(100)"))
    assert driver.restore_thread(without.pid) is None
    with pytest.raises(NotCudaProcess):
        driver.state(without.pid)
    with pytest.raises(NotCudaProcess):
        driver.lock(without.pid, TIMEOUT_MS)


def test_a_stopped_process_is_refused_instead_of_waited_for(driver: CheckpointDriver, train: Training) -> None:
    job = train()
    job.signal(signal.SIGSTOP)
    wait_for(lambda: not job.running(), 5)
    with pytest.raises(CudaTargetStopped, match="stopped"):
        driver.lock(job.pid, TIMEOUT_MS)
    with pytest.raises(CudaTargetStopped):
        driver.state(job.pid)
    job.signal(signal.SIGCONT)
    wait_for(job.running, 5)
    assert driver.state(job.pid) is CudaState.RUNNING


def test_a_process_stopped_for_a_moment_is_waited_for(driver: CheckpointDriver, train: Training) -> None:
    job = train()
    job.signal(signal.SIGSTOP)
    timer = threading.Timer(0.1, job.signal, (signal.SIGCONT,))
    timer.start()
    assert driver.state(job.pid) is CudaState.RUNNING
    timer.join()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of version 2 of its own."""
    roots = [
        root for root in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")) if (root / "cgroup.procs").exists()
    ]
    group = roots[0] / f"ckptctl-test-{os.getpid()}" if roots else Path("/nonexistent/group")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    yield group
    (group / "cgroup.freeze").write_text("0")
    wait_for(lambda: not (group / "cgroup.procs").read_text(), 10)
    group.rmdir()


def test_a_process_in_a_frozen_cgroup_is_refused(driver: CheckpointDriver, cgroup: Path, train: Training) -> None:
    job = train()
    (cgroup / "cgroup.procs").write_text(str(job.pid))
    (cgroup / "cgroup.freeze").write_text("1")
    wait_for(lambda: "frozen 1" in (cgroup / "cgroup.events").read_text(), 5)
    with pytest.raises(CudaTargetStopped):
        driver.state(job.pid)
    (cgroup / "cgroup.freeze").write_text("0")
    assert driver.state(job.pid) is CudaState.RUNNING
    job.kill()


def test_a_process_that_has_ended_is_said_to_be_gone(driver: CheckpointDriver, train: Training) -> None:
    job = train()
    job.kill()
    job.wait_gone()
    with pytest.raises(CudaProcessGone):
        driver.state(job.pid)
    with pytest.raises(CudaProcessGone):
        driver.restore_thread(job.pid)


def test_a_process_that_dies_in_the_lock_is_said_to_be_gone(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    machine.set_faults("lock crash")
    with pytest.raises(CudaProcessGone):
        driver.lock(job.pid, TIMEOUT_MS)


RESULTS = [
    (1, CudaError),
    (2, CudaOutOfMemory),
    (3, CudaUnavailable),
    (100, CudaUnavailable),
    (201, CudaError),
    (304, CudaNotPermitted),
    (401, CudaWrongState),
    (500, CudaUnavailable),
    (600, CudaBusy),
    (800, CudaNotPermitted),
    (801, CudaUnsupported),
    (999, CudaError),
]


@pytest.mark.parametrize(("result", "kind"), RESULTS)
def test_every_result_of_the_driver_is_an_error_with_cause_and_remedy(
    result: int, kind: type[CudaError], driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    machine.set_faults(f"checkpoint {result} {job.pid}")
    with pytest.raises(CudaError) as caught:
        driver.checkpoint(job.pid)
    assert type(caught.value) is kind
    assert caught.value.details["cuda_result"] == result
    assert str(job.pid) in caught.value.message
    assert caught.value.hint
    assert driver.state(job.pid) is CudaState.LOCKED


def test_a_caller_without_rights_is_told_so(driver: CheckpointDriver, train: Training, machine: FakeGpu) -> None:
    job = train()
    machine.set_faults("permission denied")
    with pytest.raises(CudaNotPermitted, match="refused") as caught:
        driver.lock(job.pid, TIMEOUT_MS)
    assert "root" in (caught.value.hint or "")


def test_managed_memory_is_not_supported(driver: CheckpointDriver, train: Training) -> None:
    job = train("--managed")
    driver.lock(job.pid, TIMEOUT_MS)
    with pytest.raises(CudaUnsupported, match="managed memory"):
        driver.checkpoint(job.pid)
    driver.unlock(job.pid)
    assert goes_on(job)


@pytest.mark.parametrize("branch", (580, 590, 610))
def test_a_map_moves_device_memory_to_another_gpu(driver: CheckpointDriver, train: Training, machine: FakeGpu) -> None:
    first, second = Card(0), Card(1)
    machine.set_cards(first, second)
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    with pytest.raises(CudaBadMap, match="every GPU"):
        driver.restore(job.pid, (GpuPair(first.uuid, second.uuid),))
    driver.restore(job.pid, (GpuPair(first.uuid, second.uuid), GpuPair(second.uuid, first.uuid)))
    driver.unlock(job.pid)
    assert (machine.used_bytes(first), machine.used_bytes(second)) == (0, 1 << 20)
    assert goes_on(job)


@pytest.mark.parametrize("branch", (570,))
def test_a_driver_before_580_takes_no_map(driver: CheckpointDriver, train: Training) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    with pytest.raises(CudaError):
        driver.restore(job.pid, (GpuPair(Card().uuid, Card().uuid),))
    assert driver.state(job.pid) is CudaState.CHECKPOINTED


def test_a_restore_that_runs_out_of_device_memory_is_final(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    driver.checkpoint(job.pid)
    machine.set_cards(Card(total_bytes=1 << 19))
    with pytest.raises(CudaOutOfMemory, match="too little free memory"):
        driver.restore(job.pid)
    machine.set_cards(Card())
    with pytest.raises(CudaRestoreRefused, match="ran out of device memory"):
        driver.restore(job.pid)


CALLER = """
from pathlib import Path
from support.fake_gpu import FakeGpu, {open_driver}
driver = {open_driver}(FakeGpu(Path({folder!r}), Path({device!r}), Path({libraries!r})))
print("ready", flush=True)
driver.{action}({pid})
"""


def start_caller(machine: FakeGpu, driver: CheckpointDriver, action: str, pid: int) -> subprocess.Popen[bytes]:
    """A process of its own that carries out one action on the job, as ckptctl would."""
    code = CALLER.format(
        open_driver="utility_on" if "utility" in driver.name else "interface_on",
        folder=str(machine.folder),
        device=str(machine.device),
        libraries=str(machine.libraries),
        action=action,
        pid=pid,
    )
    tests = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("action", "end"), [("checkpoint", CudaState.CHECKPOINTED), ("restore", CudaState.LOCKED)])
def test_an_operation_goes_to_its_end_when_ckptctl_is_killed(
    action: str,
    end: CudaState,
    number: signal.Signals,
    driver: CheckpointDriver,
    train: Training,
    machine: FakeGpu,
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    if action == "restore":
        driver.checkpoint(job.pid)
    machine.set_faults(f"{action} delay=500")
    caller = start_caller(machine, driver, action, job.pid)
    wait_for(lambda: machine.doing(job.pid) == action, 10)
    os.killpg(caller.pid, number)
    assert caller.wait(10) != 0
    # A state is asked of the target itself, which answers when it is done.
    assert driver.state(job.pid) is end
    machine.set_faults()
    if end is CudaState.CHECKPOINTED:
        driver.restore(job.pid)
    driver.unlock(job.pid)
    assert goes_on(job)


def test_only_one_operation_at_a_time_runs_on_a_process(
    driver: CheckpointDriver, train: Training, machine: FakeGpu
) -> None:
    job = train()
    driver.lock(job.pid, TIMEOUT_MS)
    machine.set_faults("checkpoint delay=500")
    caller = start_caller(machine, driver, "checkpoint", job.pid)
    wait_for(lambda: machine.doing(job.pid) == "checkpoint", 10)
    caller.kill()
    with pytest.raises(CudaWrongState):
        driver.unlock(job.pid)  # waits for the checkpoint of the killed caller first
    assert driver.state(job.pid) is CudaState.CHECKPOINTED
    caller.wait(10)
