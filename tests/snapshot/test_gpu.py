"""GPU memory in dumps and restores, on a machine whose GPU is a fake that CRIU cannot dump; see tests/fakegpu."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs, lines, python, wait_for
from support.fake_gpu import Card, FakeGpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]

STEPS = 120
TWO = (Card(number=1), Card(number=2))
Start = Callable[..., Job]
Judge = Callable[[Job], None]


class Tree:
    """A parent without CUDA and two children with it, on a GPU each; they log to files of their own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.logs = [job.folder / "child-0", job.folder / "child-1"]
        wait_for(lambda: all(len(lines(log)) >= 5 for log in self.logs), 60, f"steps of {job}")
        self.job.processes()

    def written(self) -> list[str]:
        return [log.read_text() for log in self.logs]

    def goes_on(self) -> None:
        before = [len(lines(log)) for log in self.logs]
        wait_for(
            lambda: all(len(lines(log)) > count for log, count in zip(self.logs, before, strict=True)), 30, "steps"
        )


@pytest.fixture
def plant(gpu: FakeGpu, start_job: Jobs) -> Callable[[], Tree]:
    """`plant()` starts a tree of three on a machine with two GPUs."""
    gpu.set_cards(*TWO)
    words = gpu.training(STEPS, "--cpu-parent", "2", "--gpu", "1", "--pause", "0.04")
    return lambda: Tree(start_job(words, environment=gpu.environment))


@pytest.fixture
def utility_only(gpu: FakeGpu, ckptctl: CommandLine, tmp_path: Path) -> None:
    """NVIDIA's utility is installed, and the package cuda-bindings is not."""
    package = tmp_path / "hidden" / "cuda"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('cuda-bindings is not installed')\n")
    ckptctl.environment["PYTHONPATH"] = str(package.parent)
    ckptctl.environment["PATH"] = f"{gpu.bin}:{ckptctl.environment['PATH']}"


def test_one_process_comes_back_with_its_device_memory(
    train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    dumped = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--json").check().document["result"]
    assert not job.running()
    assert [timing["action"] for timing in dumped["gpu"]["timings"]] == ["lock", "checkpoint"]
    restored = ckptctl("restore", "latest", "--json").check().document["result"]
    assert [timing["action"] for timing in restored["gpu_timings"]] == ["restore", "unlock"]
    assert_undisturbed(job)


def test_without_the_flag_gpu_use_is_detected(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid)).check()
    shown = ckptctl.json("show", "latest")["result"]["manifest"]
    assert shown["gpu"]["pids"] == [job.pid]
    ckptctl("restore", "latest").check()
    job.wait_for_lines(len(job.lines()) + 5)


def test_left_running_it_goes_on_and_can_be_restored(
    train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda", "--leave-running").check()
    job.wait_for_lines(len(job.lines()) + 10)
    job.kill()
    ckptctl("restore", "latest").check()
    assert_undisturbed(job)


def test_with_leave_running_the_gpu_goes_on_before_anything_slow_is_done(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    report = ckptctl.json("dump", "--pid", str(job.pid), "--leave-running")["result"]
    steps = [timing["name"] for timing in report["timings"]]
    assert steps.index("resume-gpu") == steps.index("freeze") + 1 < steps.index("describe") < steps.index("commit")


def test_a_tree_of_three_comes_back(plant: Callable[[], Tree], ckptctl: CommandLine) -> None:
    undisturbed, tree = plant(), plant()
    report = ckptctl.json("dump", "--pid", str(tree.job.pid), "--cuda")["result"]
    assert not tree.job.running()
    assert report["processes"] == 3
    pids = report["gpu"]["pids"]
    assert len(pids) == 2
    assert tree.job.pid not in pids
    assert {memory["uuid"] for memory in report["gpu"]["memory"]} == {card.uuid for card in TWO}
    ckptctl("restore", "latest").check()
    for each in (tree, undisturbed):
        each.job.wait_gone()
    assert tree.written() == undisturbed.written()


def test_a_tree_of_three_is_left_running(plant: Callable[[], Tree], ckptctl: CommandLine) -> None:
    undisturbed, tree = plant(), plant()
    ckptctl("dump", "--pid", str(tree.job.pid), "--cuda", "--leave-running").check()
    tree.goes_on()
    for each in (tree, undisturbed):
        each.job.wait_gone()
    assert tree.written() == undisturbed.written()


def test_all_are_locked_before_any_is_checkpointed_and_the_report_shows_it(
    plant: Callable[[], Tree], gpu: FakeGpu, ckptctl: CommandLine
) -> None:
    tree = plant()
    gpu.set_faults("checkpoint delay=200", "lock delay=100")
    report = ckptctl.json("dump", "--pid", str(tree.job.pid), "--cuda", "--leave-running")["result"]
    timings = report["gpu"]["timings"]
    assert [timing["began_s"] for timing in timings] == sorted(timing["began_s"] for timing in timings)
    locks, checkpoints = ([one for one in timings if one["action"] == what] for what in ("lock", "checkpoint"))
    assert len(locks) == len(checkpoints) == 2
    assert max(one["began_s"] + one["seconds"] for one in locks) < min(one["began_s"] for one in checkpoints)
    for one in checkpoints:
        assert one["seconds"] >= 0.2
        assert one["bytes_per_second"] == pytest.approx((1 << 20) / one["seconds"])
    assert all(one["bytes_per_second"] is None for one in locks)


def test_the_text_names_each_gpu_process_with_times_and_rates(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    rate = r"\d+ms \([\d.]+ [KMG]iB/s\)"
    dumped = ckptctl("dump", "--pid", str(job.pid), "--leave-running").check().stdout
    there = rf"GPU memory of process {job.pid}: lock \d+ms, checkpoint {rate}, restore {rate}, unlock \d+ms\n"
    assert re.search(there, dumped)
    shown = ckptctl("show", "latest").check().stdout
    assert re.search(there, shown)
    assert f"process {job.pid}: 1.00 MiB on GPU 0 (Fake H100) {Card().uuid}" in shown
    assert "driver 580.159.04" in shown
    job.kill()
    restored = ckptctl("restore", "latest").check().stdout
    assert re.search(rf"GPU memory of process {job.pid}: restore {rate}, unlock \d+ms\n", restored)


def test_nvidias_utility_does_it_too(utility_only: None, plant: Callable[[], Tree], ckptctl: CommandLine) -> None:
    undisturbed, tree = plant(), plant()
    report = ckptctl.json("dump", "--pid", str(tree.job.pid), "--cuda", "--leave-running")["result"]
    assert report["gpu"]["method"].startswith("cuda-checkpoint utility")
    tree.goes_on()
    report = ckptctl.json("dump", "--pid", str(tree.job.pid), "--cuda")["result"]
    assert report["gpu"]["method"].startswith("cuda-checkpoint utility")
    assert not tree.job.running()
    ckptctl("restore", "latest", "--gpu-map", "0=1").check()
    for each in (tree, undisturbed):
        each.job.wait_gone()
    assert tree.written() == undisturbed.written()


def test_no_cuda_refuses_a_job_that_uses_the_gpu(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    assert "--no-cuda" in ckptctl("dump", "--pid", str(job.pid), "--no-cuda").check(5).stderr
    job.wait_for_lines(len(job.lines()) + 5)


def test_cuda_without_gpu_state_is_an_error(gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job(["sleep", "60"])
    assert "holds GPU memory" in ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5).stderr
    assert job.running()


@pytest.mark.parametrize("branch", [550, 565])
@pytest.mark.parametrize("flag", [(), ("--cuda",)], ids=["detected", "asked"])
def test_drivers_without_the_interface_are_refused_with_the_reason(
    flag: tuple[str, ...], gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    ckptctl.environment["PATH"] = f"{gpu.bin}:{ckptctl.environment['PATH']}"
    job = train()
    refused = ckptctl("dump", "--pid", str(job.pid), *flag).check(15)
    assert "the driver is older than 570" in refused.stderr
    assert "cuda-checkpoint cannot be used: it lacks" in refused.stderr
    assert "driver 570 or newer" in refused.stderr
    assert "runs on" in refused.stderr
    job.wait_for_lines(len(job.lines()) + 5)


@pytest.mark.parametrize("branch", [550])
def test_on_such_a_driver_no_cuda_names_the_device_that_is_open(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    assert "/dev/nvidia" in ckptctl("dump", "--pid", str(job.pid), "--no-cuda").check(5).stderr
    job.wait_for_lines(len(job.lines()) + 5)


@pytest.mark.parametrize("branch", [550])
def test_a_program_that_only_loaded_the_library_needs_no_driver(
    gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine
) -> None:
    code = "import ctypes, time; ctypes.CDLL('libcuda.so.1'); print('ready', flush=True); time.sleep(1000)"
    job = start_job(python(code), environment=gpu.environment)
    job.wait_for_lines(1)
    assert ckptctl.json("dump", "--pid", str(job.pid))["result"]["gpu"] is None


@pytest.mark.parametrize("branch", [570, 590, 610, 615])
def test_every_driver_from_570_on_does_without_a_map(
    train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    ckptctl("restore", "latest", "--gpu-map", "0=0").check()
    assert_undisturbed(job)


FORKED = "--fork-worker"


@pytest.mark.parametrize("branch", [580])
def test_forked_children_that_inherited_the_gpu_are_refused_with_every_remedy(
    train: Start, ckptctl: CommandLine
) -> None:
    job = train(FORKED)
    refused = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5).stderr
    child = next(pid for pid in job.processes() if pid != job.pid)
    assert refused.count(f"Process {child} ") == 1
    assert "driver 580.159.04 cannot let them go (590 can)" in refused
    for remedy in ("driver 590 or newer", "cuda-checkpoint --launch-job", "forkserver", "num_workers=0"):
        assert remedy in refused
    job.wait_for_lines(len(job.lines()) + 5)


@pytest.mark.parametrize("branch", [590])
def test_without_a_job_file_they_are_refused_on_590_too(train: Start, ckptctl: CommandLine) -> None:
    job = train(FORKED)
    refused = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5).stderr
    assert "the job was not started with a CUDA job file" in refused
    assert "--launch-job" in refused
    job.wait_for_lines(len(job.lines()) + 5)


@pytest.mark.parametrize("branch", [590])
def test_with_a_job_file_they_are_saved_from_590_on(
    gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    words = [str(gpu.bin / "cuda-checkpoint"), "--launch-job", *gpu.training(1_000_000, FORKED)]
    job = start_job(words, environment=gpu.environment)
    job.wait_for_lines(5)
    child = next(pid for pid in job.processes() if pid != job.pid)
    assert any(
        fd.readlink().is_relative_to("/dev") and "nvidia" in fd.readlink().name
        for fd in Path(f"/proc/{child}/fd").iterdir()
    )
    report = ckptctl.json("dump", "--pid", str(job.pid), "--cuda")["result"]
    assert report["gpu"]["pids"] == [job.pid]
    assert report["gpu"]["workers"] == 1
    ckptctl("restore", "latest").check()
    assert_undisturbed(job)


def test_a_stopped_gpu_job_is_refused_and_told_why(train: Start, ckptctl: CommandLine) -> None:
    job = train()
    job.signal(signal.SIGSTOP)
    wait_for(lambda: not job.running(), 10, "the stop")
    refused = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5).stderr
    assert "only a process that runs can hand its device memory to the driver" in refused
    assert f"kill -CONT {job.pid}" in refused
    job.signal(signal.SIGCONT)
    job.wait_for_lines(len(job.lines()) + 5)


def test_a_stopped_child_without_the_gpu_is_no_obstacle(gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine) -> None:
    code = (
        "import os, signal, subprocess, sys\n"
        "idle = subprocess.Popen(['sleep', '1000'])\n"
        "os.kill(idle.pid, signal.SIGSTOP)\n"
        "subprocess.run(sys.argv[1:])\n"
    )
    job = start_job(python(code, *gpu.training(1_000_000)), environment=gpu.environment)
    job.wait_for_lines(5)
    report = ckptctl.json("dump", "--pid", str(job.pid), "--cuda")["result"]
    assert (report["processes"], len(report["gpu"]["pids"])) == (3, 1)
    ckptctl("restore", "latest").check()
    job.wait_for_lines(len(job.lines()) + 5)
