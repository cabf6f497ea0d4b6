"""Jobs under a keeper, dumped and restored: the keeper goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

from ckptctl import files
from ckptctl.process.identity import identify
from ckptctl.supervise.exits import JobExit, Watch
from support import CommandLine, python, wait_for
from support.fake_gpu import FakeGpu, fake_gpu
from support.jobs import state
from support.kept import Kept, KeptJobs, parent, status_field

pytestmark = pytest.mark.requires_criu

EXAMPLES = Path(__file__).parents[2] / "examples"
# Counts on both streams; with every step it asks for a ring of io_uring. Files in its folder tell it what to do.
COUNTS = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
step = 0
while not os.path.exists("end"):
    libc.syscall(425, 1, None)
    print(step, ctypes.get_errno(), flush=True)
    print("error", step, file=sys.stderr, flush=True)
    step += 1
    if os.path.exists("leave-orphan"):
        os.unlink("leave-orphan")
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                time.sleep(1000)
            os._exit(0)
        os.wait()
    time.sleep(0.02)
sys.exit(17)
"""
STEPS = 60
TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(EXAMPLES / "ddp.py"),
    str(STEPS),
)  # fmt: skip


@pytest.fixture
def counting(start_kept: KeptJobs, tmp_path: Path) -> Kept:
    """A job that counts in `tmp_path`."""
    kept = start_kept(*python(COUNTS), cwd=tmp_path, linger_s=0.5)
    kept.wait_for_lines(5)
    return kept


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_job_goes_on_under_its_keeper(rounds: int, counting: Kept, ckptctl: CommandLine, tmp_path: Path) -> None:
    for _ in range(rounds):
        dump(ckptctl, counting)
        counting.wait_for_lines(len(counting.lines()) + 10)
        counting.kill()
        before = len(counting.lines())
        ckptctl("restore", "latest").check()
        assert len(counting.lines()) < before, "its logs were put back to where they were"
        counting.wait_for_lines(before + 5)
        assert os.getsid(counting.keeper) == counting.keeper
        assert parent(counting.job) == counting.keeper
        assert status_field(counting.job, "Seccomp") == "2"
        assert status_field(counting.job, "NoNewPrivs") == "0"
    assert_consecutive(counting)
    assert parent(leave_orphan(counting, tmp_path)) == counting.keeper
    assert end(counting, tmp_path).status == 17


def test_a_signal_goes_on_to_the_job_after_a_restore(counting: Kept, ckptctl: CommandLine) -> None:
    bring_back(ckptctl, counting)
    with Watch(identify(counting.keeper), counting.run.job_exit) as watch:
        os.kill(counting.keeper, signal.SIGTERM)
        assert watch.wait(30)
        ended = watch.job_exit()
    assert ended is not None
    assert ended.status == -signal.SIGTERM


def test_orphans_of_before_the_dump_are_reaped_after_the_restore(
    counting: Kept, ckptctl: CommandLine, tmp_path: Path
) -> None:
    orphan = leave_orphan(counting, tmp_path)
    bring_back(ckptctl, counting)
    assert parent(orphan) == counting.keeper
    os.kill(orphan, signal.SIGKILL)
    wait_for(lambda: state(orphan) == "X", 10, "the reaping")


def test_a_job_that_was_stopped_stays_so(counting: Kept, ckptctl: CommandLine) -> None:
    os.kill(counting.job, signal.SIGSTOP)
    wait_for(lambda: state(counting.job) == "T", 10, "the stop")
    bring_back(ckptctl, counting)
    wait_for(lambda: state(counting.keeper) == "S", 10, "the keeper's waiting")
    assert state(counting.job) == "T"
    steps = len(counting.lines())
    os.kill(counting.job, signal.SIGCONT)
    counting.wait_for_lines(steps + 3)
    assert_consecutive(counting)


def test_a_keeper_that_waits_for_orphans_goes_on_waiting(
    start_kept: KeptJobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    kept = start_kept(*python(COUNTS), cwd=tmp_path, linger_s=3)
    kept.wait_for_lines(1)
    orphan = leave_orphan(kept, tmp_path)
    (tmp_path / "end").touch()
    kept.wait_exit()
    bring_back(ckptctl, kept)
    assert parent(orphan) == kept.keeper
    with Watch(identify(kept.keeper), kept.run.job_exit) as watch:
        assert watch.wait(30)
    assert kept.processes() == []


@pytest.mark.requires_namespaces
def test_in_a_pid_namespace_of_its_own(counting: Kept, ckptctl: CommandLine, tmp_path: Path) -> None:
    dump(ckptctl, counting)
    counting.kill()
    files.remove(counting.run.job_exit)
    report = ckptctl.json("restore", "latest", "--new-pid-namespace")["result"]
    counting.wait_for_lines(len(counting.lines()) + 5)
    keeper = report["pid"]
    assert keeper != counting.keeper
    (tmp_path / "leave-orphan").touch()
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    wait_for(lambda: len(children.read_text().split()) == 2, 10, "the adoption")
    with Watch(identify(keeper), counting.run.job_exit) as watch:
        (tmp_path / "end").touch()
        assert watch.wait(30)
        ended = watch.job_exit()
    assert ended is not None
    assert (ended.pid, ended.status) == (counting.job, 17)
    wait_for(lambda: not counting.processes(), 20, "the end of the orphan")


@cache
def torchrun_log() -> str:
    """What the training writes when nobody disturbs it."""
    import subprocess

    words = [sys.executable, str(EXAMPLES / "without_io_uring.py"), *TORCHRUN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment, timeout=180).stdout


@pytest.mark.requires_torch
def test_torchrun_is_dumped_as_it_is(start_kept: KeptJobs, ckptctl: CommandLine) -> None:
    kept = start_kept(*TORCHRUN, environment={"OMP_NUM_THREADS": "1"})
    kept.wait_for_lines(10, 120)
    bring_back(ckptctl, kept)
    with Watch(identify(kept.keeper), kept.run.job_exit) as watch:
        assert watch.wait(120)
        ended = watch.job_exit()
    assert ended is not None
    assert ended.status == 0, kept.errors()
    assert kept.run.stdout.read_text() == torchrun_log()


@pytest.mark.requires_fake_gpu
def test_with_a_job_file_forked_workers_are_no_obstacle(
    start_kept: KeptJobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    with fake_gpu(tmp_path / "gpu", 590) as gpu:
        ckptctl.environment.update(gpu.environment)
        words = gpu.training(1_000_000, "--fork-worker")
        plain = start_kept(*words, environment=gpu.environment)
        plain.wait_for_lines(5)
        refused = ckptctl("dump", "--pid", str(plain.keeper), "--cuda").check(5).stderr
        assert "--launch-job" in refused
        plain.kill()
        plain.run.stdout.unlink()
        _with_job_file(gpu, start_kept, ckptctl)


def _with_job_file(gpu: FakeGpu, start_kept: KeptJobs, ckptctl: CommandLine) -> None:
    words = gpu.training(1_000_000, "--fork-worker")
    kept = start_kept(*words, environment=gpu.environment, cuda_launcher=gpu.bin / "cuda-checkpoint")
    kept.wait_for_lines(5)
    report = ckptctl.json("dump", "--pid", str(kept.keeper), "--run", "gpt", "--cuda", "--leave-running")["result"]
    assert report["gpu"]["workers"] == 1
    kept.kill()
    ckptctl("restore", "latest").check()
    kept.wait_for_lines(len(kept.lines()) + 5)
    variables = Path(f"/proc/{kept.job}/environ").read_text().split("\0")
    named = dict(item.split("=", 1) for item in variables if item)["CUDA_CHECKPOINT_JOB_FILE"]
    assert Path(named).exists(), "the file in memory is back, where the job looks for it"
    kept.kill()


def dump(ckptctl: CommandLine, kept: Kept) -> None:
    """Take a snapshot; the job goes on."""
    ckptctl("dump", "--pid", str(kept.keeper), "--run", "gpt", "--leave-running").check()


def bring_back(ckptctl: CommandLine, kept: Kept) -> None:
    """Dump the job, kill it and restore it."""
    dump(ckptctl, kept)
    kept.kill()
    files.remove(kept.run.job_exit)
    ckptctl("restore", "latest").check()


def leave_orphan(kept: Kept, folder: Path) -> int:
    """Let the job leave an orphan, and return its pid once the keeper has adopted it."""
    (folder / "leave-orphan").touch()
    children = Path(f"/proc/{kept.keeper}/task/{kept.keeper}/children")

    def others() -> list[int]:
        return [int(word) for word in children.read_text().split() if int(word) != kept.job]

    return wait_for(others, 20, "an orphan")[0]


def end(kept: Kept, folder: Path) -> JobExit:
    """Let the job end, and wait for its keeper."""
    with Watch(identify(kept.keeper), kept.run.job_exit) as watch:
        (folder / "end").touch()
        assert watch.wait(30)
        ended = watch.job_exit()
    assert ended is not None
    return ended


def assert_consecutive(kept: Kept) -> None:
    """Both logs are those of a job that was never disturbed and never had io_uring."""
    out = kept.lines()
    assert out == [f"{step} 38" for step in range(len(out))]
    errors = kept.errors().splitlines()
    assert errors == [f"error {step}" for step in range(len(errors))]
