"""What is found out about the GPUs of a machine, and that nothing about them can stop a command."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.host.gpu import ComputeMode, Gpu, GpuProcess, read_gpu_facts
from support import Job
from support.fake_gpu import Card, FakeGpu

pytestmark = pytest.mark.requires_fake_gpu
Training = Callable[..., Job]


def test_gpus_and_their_processes_are_described(machine: FakeGpu, train: Training) -> None:
    machine.set_cards(
        Card(0, persistence=True, mig=0), Card(1, total_bytes=32 << 20, compute_mode=3, mig=1, model="Fake Two")
    )
    job = train("--bytes", str(3 << 20))
    facts = read_gpu_facts(environment=machine.environment)
    assert (facts.driver, facts.reason) == ("580.159.04", None)
    assert facts.gpus == (
        Gpu(
            index=0,
            uuid=Card(0).uuid,
            model="Fake H100",
            total_bytes=64 << 20,
            free_bytes=61 << 20,
            used_bytes=3 << 20,
            persistence=True,
            compute_mode=ComputeMode.DEFAULT,
            mig=False,
            processes=(GpuProcess(job.pid, 3 << 20),),
        ),
        Gpu(
            index=1,
            uuid=Card(1).uuid,
            model="Fake Two",
            total_bytes=32 << 20,
            free_bytes=32 << 20,
            used_bytes=0,
            persistence=False,
            compute_mode=ComputeMode.EXCLUSIVE_PROCESS,
            mig=True,
        ),
    )


def test_a_gpu_that_knows_no_mig_says_neither_yes_nor_no(machine: FakeGpu) -> None:
    (gpu,) = read_gpu_facts(environment=machine.environment).gpus
    assert gpu.mig is None


def test_a_machine_without_a_library_is_a_plain_fact() -> None:
    facts = read_gpu_facts()
    assert (facts.driver, facts.gpus) == (None, ())
    assert "management library" in (facts.reason or "")


def test_a_machine_without_a_working_driver_is_a_plain_fact(machine: FakeGpu) -> None:
    machine.set_cards()
    facts = read_gpu_facts(environment=machine.environment)
    assert (facts.driver, facts.gpus) == (None, ())
    assert "Driver Not Loaded" in (facts.reason or "")


def test_a_machine_without_the_package_is_a_plain_fact(machine: FakeGpu, tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("raise ImportError('no such package')")
    root = Path(__file__).parents[2]
    facts = read_gpu_facts(environment={**machine.environment, "PYTHONPATH": f"{tmp_path}:{root}"})
    assert facts.driver is None
    assert "nvidia-ml-py is not usable (no such package)" in (facts.reason or "")


def test_a_library_that_never_answers_does_not_hold_up(machine: FakeGpu) -> None:
    machine.set_faults("nvml hang")
    began = time.monotonic()
    facts = read_gpu_facts(timeout_s=1, environment=machine.environment)
    assert time.monotonic() - began < 5
    assert facts.driver is None
    assert "did not answer within 1 s" in (facts.reason or "")


@pytest.mark.parametrize("branch", [550, 570, 610])
def test_the_version_is_that_of_the_driver(machine: FakeGpu, branch: int) -> None:
    assert (read_gpu_facts(environment=machine.environment).driver or "").startswith(f"{branch}.")
