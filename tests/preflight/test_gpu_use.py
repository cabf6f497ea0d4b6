"""What a job does with its GPUs that the driver may not save: told as warnings, unless the job was started for it."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptctl.preflight.finding import Level
from ckptctl.preflight.gpu_use import CudaProcess, GpuUse, findings
from support import CommandLine, Jobs, wait_for
from support.fake_gpu import Card, fake_gpu
from support.shapes import started

NETWORK_ONLY = (("NCCL_P2P_DISABLE", "1"), ("NCCL_SHM_DISABLE", "1"), ("NCCL_NVLS_ENABLE", "0"))
LEGACY_IPC = (("NCCL_CUMEM_ENABLE", "0"), ("NCCL_NVLS_ENABLE", "0"))
JOB_MODE = (*LEGACY_IPC, ("CUDA_CHECKPOINT_JOB_FILE", "/proc/self/fd/3"))


def ranks(count: int, settings: tuple[tuple[str, str], ...] = (), library: str = "libnccl.so.2") -> GpuUse:
    processes = tuple(CudaProcess(100 + n, f"{100 + n} (python)", frozenset({library}), settings) for n in range(count))
    return GpuUse(processes, "610.57.04")


def warned(use: GpuUse) -> set[str]:
    return {finding.check for finding in findings(use) if finding.level is Level.WARNING}


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (ranks(1), set()),
        (ranks(2), {"nccl-ranks"}),
        (ranks(2, library="libcudart.so.13"), set()),
        (ranks(2, NETWORK_ONLY), set()),
        (ranks(2, NETWORK_ONLY[:2]), {"nccl-ranks"}),
        (ranks(2, JOB_MODE), set()),
        (ranks(2, LEGACY_IPC), {"nccl-ranks"}),
        (GpuUse(ranks(2, JOB_MODE).processes, "590.48.01"), {"nccl-ranks"}),
        (GpuUse(ranks(2, JOB_MODE).processes, None), {"nccl-ranks"}),
        (ranks(1, library="libbitsandbytes_cuda128.so"), {"managed-memory"}),
    ],
)
def test_memory_that_ranks_share_is_told(use: GpuUse, expected: set[str]) -> None:
    assert warned(use) == expected


@pytest.mark.requires_fake_gpu
def test_the_libraries_of_a_job_are_seen(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with fake_gpu(tmp_path / "gpu", 580, Card()) as machine:
        library = tmp_path / "libbitsandbytes_cuda128.so"
        shutil.copy(machine.libraries / "libnvidia-ml.so.1", library)
        job = start_job(machine.training(100_000), environment={**machine.environment, "LD_PRELOAD": str(library)})
        wait_for(lambda: (job.folder / "stdout").read_text().count("\n") > 2, 20, "steps")
        answer = ckptctl("check", "--pid", str(job.pid), "--json", environment=machine.environment).document["result"]
        (found,) = (one for one in answer["findings"] if one["check"] == "managed-memory")
        assert found["level"] == "warning"
        assert found["data"] == {"pid": str(job.pid), "library": library.name}


@pytest.fixture
def gdrcopy() -> Iterator[Path]:
    """A device where that of GDRCopy is: the one of FUSE, which does nothing when it is only held open."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("only root can make a device")
    path = Path(f"/dev/gdrdrv-{secrets.token_hex(4)}")
    os.mknod(path, 0o600 | stat.S_IFCHR, Path("/dev/fuse").stat().st_rdev)
    yield path
    path.unlink()


def test_gdrcopy_stands_in_the_way(start_job: Jobs, ckptctl: CommandLine, gdrcopy: Path) -> None:
    with started(start_job, "device", "--path", str(gdrcopy)) as shape:
        answer = ckptctl("check", "--pid", str(shape.pid), "--json").check(5).document["result"]
        (found,) = (one for one in answer["findings"] if one["level"] == "error" and one["check"] != "criu")
        assert found["check"] == "gdrcopy"
        assert found["remedy"].startswith("Start the job without it")
    with started(start_job, "device", "--path", "/dev/null") as shape:
        result = ckptctl("check", "--pid", str(shape.pid), "--json").check().document["result"]
        assert {one["level"] for one in result["findings"]} == {"ok"}
