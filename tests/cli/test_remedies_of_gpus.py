"""What check tells to do about a job's use of GPUs is done; then check is content, and the job comes through."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Job, Jobs, wait_for
from support.fake_gpu import FakeGpu, fake_gpu
from support.shapes import started

pytestmark = [pytest.mark.requires_fake_gpu, pytest.mark.requires_criu]
FORKED, SPAWNED = "--fork-worker", "--spawn-worker"
NO_SHARED_MEMORY = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_NVLS_ENABLE": "0"}


def amiss(ckptctl: CommandLine, job: Job, machine: FakeGpu) -> dict[str, Any]:
    """The findings of `check --pid` that are not ok, by check."""
    ended = ckptctl("check", "--pid", str(job.pid), "--json", environment=machine.environment)
    return {one["check"]: one for one in ended.document["result"]["findings"] if one["level"] != "ok"}


def train(
    start_job: Jobs, machine: FakeGpu, *options: str, first: tuple[str, ...] = (), more: Mapping[str, str] | None = None
) -> Job:
    """A training that runs; `first` is a command that starts it, `more` is added to its environment."""
    environment = {**machine.environment, **(more or {})}
    job = start_job([*first, *machine.training(1_000_000, *options)], environment=environment)
    if "--cpu-parent" not in options:
        job.wait_for_lines(5)
    return job


def goes_through(ckptctl: CommandLine, job: Job, machine: FakeGpu) -> None:
    """Dump it and restore it: it goes on where it was."""
    ckptctl("dump", "--pid", str(job.pid), "--cuda", environment=machine.environment).check()
    lines = len(job.lines())
    ckptctl("restore", "latest", environment=machine.environment).check()
    job.wait_for_lines(lines + 5)


@pytest.mark.parametrize(
    ("driver", "options"), [(580, ()), (580, (SPAWNED,)), (590, (FORKED,))], ids=["no-workers", "spawn", "launch-job"]
)
def test_workers_do_not_inherit_the_gpu(
    driver: int, options: tuple[str, ...], start_job: Jobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    with fake_gpu(tmp_path / "gpu", driver) as machine:
        job = train(start_job, machine, FORKED)
        found = amiss(ckptctl, job, machine)
        assert set(found) == {"gpu-inherited"}
        for way in ("driver 590 or newer", "cuda-checkpoint --launch-job", "spawn", "num_workers=0"):
            assert way in found["gpu-inherited"]["remedy"]
        job.kill()

        launch = (str(machine.bin / "cuda-checkpoint"), "--launch-job") if FORKED in options else ()
        job = train(start_job, machine, *options, first=launch)
        assert amiss(ckptctl, job, machine) == {}
        goes_through(ckptctl, job, machine)


def test_a_device_without_cuda_is_closed(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with (
        fake_gpu(tmp_path / "gpu", 580) as machine,
        started(start_job, "device", "--path", str(machine.device)) as shape,
    ):
        found = amiss(ckptctl, shape.job, machine)
        assert set(found) == {"gpu-device"}
        assert "close the device in the job" in found["gpu-device"]["remedy"]
        os.kill(shape.pid, signal.SIGUSR1)
        wait_for(lambda: amiss(ckptctl, shape.job, machine) == {}, 20, "nothing against the job")
        ckptctl("dump", "--pid", str(shape.pid), environment=machine.environment).check()
        at_the_dump = shape.steps()
        ckptctl("restore", "latest").check()
        shape.wait_steps(at_the_dump + 5)


def test_a_way_to_the_driver_is_installed(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    """Without the driver's library, as in a container that has the devices alone."""
    with fake_gpu(tmp_path / "gpu", 580) as machine:
        job = train(start_job, machine)
        ended = ckptctl("check", "--pid", str(job.pid), "--json").check(5)
        (found,) = (one for one in ended.document["result"]["findings"] if one["level"] == "error")
        assert found["check"] == "gpu-interface"
        assert found["remedy"].startswith("Install NVIDIA's driver 570 or newer")
        assert amiss(ckptctl, job, machine) == {}
        goes_through(ckptctl, job, machine)


def test_ranks_are_started_without_shared_device_memory(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with fake_gpu(tmp_path / "gpu", 580) as machine:
        library = tmp_path / "libnccl.so.2"
        shutil.copy(machine.libraries / "libnvidia-ml.so.1", library)
        loaded = {"LD_PRELOAD": str(library)}
        job = ranks(train(start_job, machine, "--cpu-parent", "2", more=loaded))
        found = amiss(ckptctl, job, machine)
        assert set(found) == {"nccl-ranks"}
        for name, value in NO_SHARED_MEMORY.items():
            assert f"{name}={value}" in found["nccl-ranks"]["remedy"]
        job.kill()

        job = ranks(train(start_job, machine, "--cpu-parent", "2", more={**loaded, **NO_SHARED_MEMORY}))
        assert amiss(ckptctl, job, machine) == {}
        ckptctl("dump", "--pid", str(job.pid), "--cuda", environment=machine.environment).check()
        ckptctl("restore", "latest", environment=machine.environment).check()
        ranks(job)


def test_an_optimizer_without_managed_memory_is_taken(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with fake_gpu(tmp_path / "gpu", 580) as machine:
        library = tmp_path / "libbitsandbytes_cuda128.so"
        shutil.copy(machine.libraries / "libnvidia-ml.so.1", library)
        job = train(start_job, machine, "--managed", more={"LD_PRELOAD": str(library)})
        found = amiss(ckptctl, job, machine)
        assert set(found) == {"managed-memory"}
        ckptctl("dump", "--pid", str(job.pid), "--cuda", environment=machine.environment).check(5)
        job.kill()

        job = train(start_job, machine)
        assert amiss(ckptctl, job, machine) == {}
        goes_through(ckptctl, job, machine)


def ranks(job: Job) -> Job:
    """The job, once both of its ranks make progress."""
    logs = [job.folder / "child-0", job.folder / "child-1"]
    before = [log.stat().st_size if log.exists() else 0 for log in logs]
    wait_for(
        lambda: all(log.exists() and log.stat().st_size > size for log, size in zip(logs, before, strict=True)),
        60,
        "steps",
    )
    return job
