"""Real training jobs, dumped at a random step and restored: the log is that of an undisturbed run, byte for byte."""

from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_torch]

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 90
TRAIN = ("train.py", str(STEPS), "--pause", "0.02")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(EXAMPLES / "ddp.py"), str(STEPS))
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_chance = random.Random()


def command(*words: str) -> list[str]:
    script, *rest = words
    return [sys.executable, str(EXAMPLES / script), *rest]


WORKLOADS = {
    "one process": command(*TRAIN),
    "two workers": command(*TRAIN, "--workers", "2"),
    "torchrun": command("without_io_uring.py", sys.executable, *TORCHRUN),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The logs of runs that nobody touched, each made once."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


class Undisturbed:
    """Runs each workload once and keeps its log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log = cache(self._run)

    def _run(self, name: str) -> str:
        jobs = Jobs(self._folder / name.replace(" ", "-"))
        try:
            job = jobs(WORKLOADS[name], environment=ENVIRONMENT)
            assert job.wait_status(180) == 0, str(job)
            return job.stdout.read_text()
        finally:
            jobs.close()


def at_a_random_step(job: Job) -> int:
    """Wait for some step in the first half of the run."""
    step = _chance.randint(5, STEPS // 2)
    job.wait_for_lines(step, 120)
    return step


@pytest.mark.parametrize("name", WORKLOADS)
def test_dumped_and_restored(name: str, start_job: Jobs, ckptctl: CommandLine, undisturbed: Undisturbed) -> None:
    expected = undisturbed.log(name)
    job = start_job(WORKLOADS[name], environment=ENVIRONMENT)
    step = at_a_random_step(job)
    ckptctl("dump", "--pid", str(job.pid), "--step", str(step)).check()
    assert not job.running()
    assert len(job.lines()) < STEPS
    ckptctl("restore", f"step:{step}").check()
    job.wait_for_lines(STEPS, 120)
    job.wait_gone()
    assert job.stdout.read_text() == expected


@pytest.mark.parametrize("name", WORKLOADS)
def test_saved_running_then_killed_and_restored(
    name: str, start_job: Jobs, ckptctl: CommandLine, undisturbed: Undisturbed
) -> None:
    expected = undisturbed.log(name)
    job = start_job(WORKLOADS[name], environment=ENVIRONMENT)
    at_a_random_step(job)
    ckptctl("dump", "--pid", str(job.pid), "--leave-running").check()
    job.wait_for_lines(min(STEPS, len(job.lines()) + 20), 120)
    job.kill()
    ckptctl("restore", "latest").check()
    job.wait_for_lines(STEPS, 120)
    job.wait_gone()
    assert job.stdout.read_text() == expected


def test_torchrun_with_io_uring_is_refused_beforehand(start_job: Jobs, ckptctl: CommandLine) -> None:
    """libuv, in torchrun's store, opens one; the job is not touched."""
    job = start_job([sys.executable, *TORCHRUN], environment=ENVIRONMENT)
    job.wait_for_lines(5, 120)
    refused = ckptctl("dump", "--pid", str(job.pid)).check(5)
    assert "io_uring" in refused.stderr
    assert "ENOSYS" in refused.stderr, "the remedy is named"
    assert ckptctl.json("list")["result"] == []
    job.wait_for_lines(len(job.lines()) + 5, 60)
