"""The fake GPU itself, with real CRIU: it must be as unforgiving as a real one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ckptctl.cuda.driver import CheckpointDriver, CudaState
from ckptctl.cuda.interface import open_interface
from support import Job, Jobs, wait_for
from support.fake_gpu import FakeGpu, fake_gpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]


def run_criu(criu: Path, images: Path, action: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run criu without plugins; its log is `images`/ACTION.log."""
    empty = images / "no-plugins"
    empty.mkdir(parents=True, exist_ok=True)
    words = [action, "--images-dir", images, "--log-file", f"{action}.log", "-v4", "--libdir", empty, *options]
    return subprocess.run([criu, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True)


def away(driver: CheckpointDriver, pid: int) -> None:
    driver.lock(pid, 10_000)
    driver.checkpoint(pid)


def start_training(start_job: Jobs, machine: FakeGpu, steps: int, *options: str) -> Job:
    job = start_job(machine.training(steps, *options), environment=machine.environment)
    job.wait_for_lines(5)
    return job


def undisturbed(start_job: Jobs, machine: FakeGpu, steps: int) -> list[str]:
    job = start_job(machine.training(steps, "--pause", "0"), environment=machine.environment)
    assert job.wait_status() == 0
    return job.lines()


def test_a_dump_without_the_cuda_steps_fails(start_job: Jobs, machine: FakeGpu, criu: Path, tmp_path: Path) -> None:
    job = start_training(start_job, machine, 100_000)
    done = run_criu(criu, tmp_path / "images", "dump", "--tree", str(job.pid))
    assert done.returncode != 0
    assert "Can't dump file" in (tmp_path / "images/dump.log").read_text()
    job.wait_for_lines(len(job.lines()) + 3)


def test_what_was_checkpointed_and_dumped_goes_on_as_if_nothing_had_happened(
    start_job: Jobs, machine: FakeGpu, criu: Path, tmp_path: Path
) -> None:
    steps = 150
    job = start_training(start_job, machine, steps, "--pause", "0.01")
    images = tmp_path / "images"
    driver = open_interface(machine.environment)
    away(driver, job.pid)
    assert run_criu(criu, images, "dump", "--tree", str(job.pid)).returncode == 0
    job.wait_gone()
    assert run_criu(criu, images, "restore", "--restore-detached").returncode == 0
    assert driver.state(job.pid) is CudaState.CHECKPOINTED
    before = len(job.lines())
    driver.restore(job.pid)
    driver.unlock(job.pid)
    wait_for(lambda: len(job.lines()) == steps, 30, "the end of the run")
    assert 5 <= before < steps
    assert job.lines() == undisturbed(start_job, machine, steps)
    driver.close()


def test_without_the_cuda_restore_the_restored_program_waits(
    start_job: Jobs, machine: FakeGpu, criu: Path, tmp_path: Path
) -> None:
    job = start_training(start_job, machine, 100_000)
    driver = open_interface(machine.environment)
    away(driver, job.pid)
    assert run_criu(criu, tmp_path / "images", "dump", "--tree", str(job.pid)).returncode == 0
    job.wait_gone()
    assert run_criu(criu, tmp_path / "images", "restore", "--restore-detached").returncode == 0
    count = len(job.lines())
    with pytest.raises(AssertionError, match="still not"):
        wait_for(lambda: len(job.lines()) > count, 0.5)
    driver.restore(job.pid)
    driver.unlock(job.pid)
    job.wait_for_lines(count + 3)
    driver.close()


@pytest.mark.parametrize(("branch", "succeeds"), [(580, False), (590, True)])
def test_a_forked_child_blocks_the_dump_unless_the_driver_knows_job_files(
    branch: int, succeeds: bool, start_job: Jobs, criu: Path, tmp_path: Path
) -> None:
    with fake_gpu(tmp_path / "gpu", branch) as machine:
        environment = {**machine.environment, "CUDA_CHECKPOINT_JOB_FILE": str(tmp_path / "job")}
        job = start_job(machine.training(100_000, "--fork-worker"), environment=environment)
        job.wait_for_lines(5)
        driver = open_interface(machine.environment)
        away(driver, job.pid)
        done = run_criu(criu, tmp_path / "images", "dump", "--tree", str(job.pid))
        assert (done.returncode == 0) is succeeds, (tmp_path / "images/dump.log").read_text()[-2000:]
        driver.close()


def test_the_driver_process_holds_the_device_and_not_we(machine: FakeGpu, start_job: Jobs) -> None:
    job = start_training(start_job, machine, 100_000)
    driver = open_interface(machine.environment)
    away(driver, job.pid)
    driver.restore(job.pid)
    ours = {os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()}
    assert str(machine.device) not in ours
    driver.unlock(job.pid)
    driver.close()
