"""GPU memory in dumps and restores, on a machine whose GPU is a fake that CRIU cannot dump; see tests/fakegpu."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs
from support.fake_gpu import Card, FakeGpu, fake_gpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]

STEPS = 120
Start = Callable[..., Job]


@pytest.fixture
def gpu(tmp_path: Path, ckptctl: CommandLine) -> Iterator[FakeGpu]:
    """A machine with driver 580 and one GPU; ckptctl runs on it."""
    with fake_gpu(tmp_path / "gpu", 580) as machine:
        ckptctl.environment.update(machine.environment)
        yield machine


@pytest.fixture
def train(gpu: FakeGpu, start_job: Jobs) -> Start:
    """`train()` starts the training program on the fake GPU and waits for its first steps."""

    def start(*options: str) -> Job:
        job = start_job(gpu.training(STEPS, *options), environment=gpu.environment)
        job.wait_for_lines(5)
        return job

    return start


def test_one_process_comes_back_with_its_device_memory(gpu: FakeGpu, train: Start, ckptctl: CommandLine) -> None:
    undisturbed, job = train(), train()
    report = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--json").check().document["result"]
    assert not job.running()
    assert [timing["action"] for timing in report["gpu"]["timings"]] == ["lock", "checkpoint"]
    ckptctl("restore", "latest").check()
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


def test_without_the_flag_gpu_use_is_detected(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid)).check()
    shown = ckptctl.json("show", "latest")["result"]["manifest"]
    assert shown["gpu"]["pids"] == [job.pid]
    ckptctl("restore", "latest").check()
    job.wait_for_lines(len(job.lines()) + 5)


def test_left_running_it_goes_on_and_can_be_restored(train: Start, ckptctl: CommandLine) -> None:
    undisturbed, job = train(), train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda", "--leave-running").check()
    job.wait_for_lines(len(job.lines()) + 10)
    job.kill()
    ckptctl("restore", "latest").check()
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


def test_no_cuda_refuses_a_job_that_uses_the_gpu(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    assert "--no-cuda" in ckptctl("dump", "--pid", str(job.pid), "--no-cuda").check(5).stderr
    job.wait_for_lines(len(job.lines()) + 5)


def test_cuda_without_gpu_state_is_an_error(gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job(["sleep", "60"])
    assert "holds GPU memory" in ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5).stderr
    assert job.running()


@pytest.mark.parametrize("fault", ["lock busy", "checkpoint 801", "checkpoint 2"])
def test_a_fault_of_the_driver_leaves_the_job_running(
    fault: str, gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    undisturbed, job = train(), train()
    gpu.set_faults(fault)
    failed = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--gpu-timeout", "1s")
    gpu.set_faults()
    assert failed.status not in (0, 1, 8), failed.stderr
    assert "runs on" in failed.stderr
    assert ckptctl.json("list")["result"] == []
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


def test_a_process_that_the_driver_gives_up_is_said_to_be_lost(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    job = train()
    gpu.set_faults("checkpoint fail")
    lost = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(8)
    assert f"Process {job.pid} is lost" in lost.stderr


def test_a_restore_whose_gpu_part_fails_is_a_failure(gpu: FakeGpu, train: Start, ckptctl: CommandLine) -> None:
    """criu returns 0, and the driver says that it moved the memory back, but it is not there."""
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    gpu.set_faults("restore lie")
    failed = ckptctl("restore", "latest").check(9)
    assert "GPU" in failed.stderr
    assert not job.processes()
    gpu.set_faults()
    ckptctl("restore", "latest").check()
    job.wait_for_lines(len(job.lines()) + 5)


def test_device_memory_that_does_not_fit_is_refused_before_criu_begins(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    gpu.set_cards(Card(total_bytes=1 << 12))
    refused = ckptctl("restore", "latest").check(5)
    assert "free; the job needs" in refused.stderr
    gpu.set_cards(Card())
    ckptctl("restore", "latest").check()


def test_another_gpu_takes_the_place_by_itself_where_the_choice_is_clear(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    undisturbed, job = train(), train()
    undisturbed.wait_status()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    gpu.set_cards(Card(number=7))
    ckptctl("restore", "latest").check()
    assert gpu.used_bytes(Card(number=7)) > 0
    job.wait_gone()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


@pytest.mark.parametrize("step", ["lock-gpu", "checkpoint-gpu", "freeze", "resume-gpu", "describe", "commit"])
@pytest.mark.parametrize("moment", ["started", "finished"])
def test_ckptctl_killed_at_a_cuda_step(
    step: str, moment: str, train: Start, ckptctl: CommandLine, cut_off: Callable[..., object]
) -> None:
    undisturbed, job = train(), train()
    cut_off("SIGKILL", moment, step, "dump", "--pid", str(job.pid), "--cuda", "--leave-running")
    ckptctl("recover").check()
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


@pytest.mark.parametrize("step", ["restore", "look", "restore-gpu", "finish"])
def test_ckptctl_killed_in_a_restore(
    step: str, train: Start, ckptctl: CommandLine, cut_off: Callable[..., object]
) -> None:
    undisturbed, job = train(), train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    cut_off("SIGKILL", "started", step, "restore", "latest")
    ckptctl("recover").check()
    if not job.running():
        ckptctl("restore", "latest").check()
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()


def test_interrupted_after_the_checkpoint_the_job_runs_on(
    train: Start, ckptctl: CommandLine, cut_off: Callable[..., object]
) -> None:
    undisturbed, job = train(), train()
    cut_off("SIGTERM", "finished", "checkpoint-gpu", "dump", "--pid", str(job.pid), "--cuda")
    job.wait_gone()
    undisturbed.wait_status()
    assert job.stdout.read_text() == undisturbed.stdout.read_text()
