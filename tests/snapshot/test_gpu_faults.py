"""Whatever goes wrong with the GPU, the job runs on with its device memory, or what is lost is said."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import CommandLine, Job, Jobs, python, wait_for
from support.fake_gpu import Card, FakeGpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]

Start = Callable[..., Job]
Judge = Callable[[Job], None]
CutOff = Callable[..., subprocess.CompletedProcess[str]]
# Takes device memory without ever touching it, so that it may be larger than the machine.
_HOLD = """
import ctypes, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
assert not cuda.cuInit(0)
assert not cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
assert not cuda.cuCtxSetCurrent(context)
assert not cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(sys.argv[1])))
print("ready", flush=True)
while True:
    time.sleep(0.1)
    print("on", flush=True)
"""


def assert_nothing_is_left(ckptctl: CommandLine) -> None:
    left = [*ckptctl.state.glob("journal/*.json"), *ckptctl.state.glob("locks/*.json")]
    left += [*ckptctl.store.glob("staging/*"), *ckptctl.store.glob("locks/*.json")]
    assert not left


@pytest.fixture
def hold(gpu: FakeGpu, start_job: Jobs) -> Callable[[int], Job]:
    """`hold(size_bytes)` starts a process with so much device memory."""

    def start(size_bytes: int) -> Job:
        gpu.set_cards(Card(total_bytes=size_bytes * 2))
        job = start_job(python(_HOLD, str(size_bytes)), environment=gpu.environment)
        job.wait_for_lines(2)
        return job

    return start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("lock busy", 16, "did not come to rest"),
        ("lock 304", 6, "CAP_SYS_PTRACE"),
        ("permission denied", 6, "CAP_SYS_PTRACE"),
        ("lock 800", 6, "nvidia-smi -pm 1"),
        ("checkpoint 801", 5, "managed memory"),
        ("checkpoint 2", 7, "MIG"),
        ("checkpoint 304", None, ""),
        ("checkpoint 999", None, ""),
    ],
)
@pytest.mark.parametrize("leave", [(), ("--leave-running",)], ids=["to-end", "leave-running"])
def test_a_fault_of_the_driver_leaves_the_job_running(
    fault: str,
    status: int | None,
    said: str,
    leave: tuple[str, ...],
    gpu: FakeGpu,
    train: Start,
    ckptctl: CommandLine,
    assert_undisturbed: Judge,
) -> None:
    job = train()
    gpu.set_faults(fault)
    failed = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--gpu-timeout", "1s", *leave)
    assert failed.status not in (0, 1), failed.stderr
    if status is not None:
        assert failed.status == status, failed.stderr
    assert said in failed.stderr
    assert "runs on" in failed.stderr
    assert ckptctl.json("list")["result"] == []
    assert_undisturbed(job)
    assert_nothing_is_left(ckptctl)


def test_managed_memory_is_refused_by_the_driver_and_named(train: Start, ckptctl: CommandLine) -> None:
    job = train("--managed")
    failed = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5)
    assert "managed memory" in failed.stderr
    assert "paged optimizers" in failed.stderr
    job.wait_for_lines(len(job.lines()) + 5)


def test_if_one_of_two_cannot_be_checkpointed_both_run_on(gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job(gpu.training(100_000, "--cpu-parent", "2"), environment=gpu.environment)
    logs = [job.folder / f"child-{number}" for number in (0, 1)]
    wait_for(lambda: all(log.exists() and log.read_text().count("\n") > 5 for log in logs), 30, "steps")
    first, second = sorted(pid for pid in job.processes() if pid != job.pid)
    for pid in (first, second):
        gpu.set_faults(f"checkpoint 801 {pid}")
        ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5)
    gpu.set_faults()
    before = [log.read_text().count("\n") for log in logs]
    wait_for(
        lambda: all(log.read_text().count("\n") > count for log, count in zip(logs, before, strict=True)), 30, "steps"
    )


def test_if_one_of_two_is_lost_the_other_runs_on(gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job(gpu.training(100_000, "--cpu-parent", "2"), environment=gpu.environment)
    logs = {}
    wait_for(lambda: sum((job.folder / f"child-{number}").exists() for number in (0, 1)) == 2, 30, "children")
    first, second = sorted(pid for pid in job.processes() if pid != job.pid)
    logs = {first: job.folder / "child-0", second: job.folder / "child-1"}
    wait_for(lambda: all(log.read_text().count("\n") > 5 for log in logs.values()), 30, "steps")
    gpu.set_faults(f"restore fail {first}")
    lost = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--leave-running").check(8)
    assert f"The GPU state of process {first} is lost" in lost.stderr
    assert str(second) not in lost.stderr.partition("What to do")[0]
    before = logs[second].read_text().count("\n")
    wait_for(lambda: logs[second].read_text().count("\n") > before + 3, 30, "steps of the other")


@pytest.mark.parametrize("fault", ["lock fail", "checkpoint fail"])
def test_a_process_that_the_driver_gives_up_is_said_to_be_lost(
    fault: str, gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    job = train()
    gpu.set_faults(fault)
    lost = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(8)
    assert f"Process {job.pid} is lost" in lost.stderr
    assert ckptctl.json("list")["result"] == []


def test_a_process_that_the_driver_kills_is_said_to_be_gone(gpu: FakeGpu, train: Start, ckptctl: CommandLine) -> None:
    job = train()
    gpu.set_faults("lock crash")
    lost = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(8)
    assert f"The job (pid {job.pid}) is gone" in lost.stderr
    ckptctl("recover").check()
    assert_nothing_is_left(ckptctl)


def test_a_job_lost_after_its_images_were_complete_is_saved_all_the_same(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    gpu.set_faults("restore fail")
    lost = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--leave-running").check(8)
    gpu.set_faults()
    (entry,) = ckptctl.json("list")["result"]
    assert f"The snapshot {entry['folder']} is complete." in lost.stderr
    assert f"kill -9 {job.pid}; ckptctl restore {entry['folder']}" in lost.stderr
    job.kill()
    ckptctl("restore", entry["folder"]).check()
    assert_undisturbed(job)


def test_a_restore_whose_gpu_part_fails_is_a_failure(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    """criu returns 0, and the driver says that it moved the memory back, but it is not there."""
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    written = job.stdout.read_bytes()
    for fault in ("restore lie", "restore 999", "restore fail", "unlock 401"):
        gpu.set_faults(fault)
        failed = ckptctl("restore", "latest").check(9)
        assert "criu restored the job, but its GPU memory could not be given back" in failed.stderr
        assert not job.processes()
        assert job.stdout.read_bytes() == written
        assert_nothing_is_left(ckptctl)
    gpu.set_faults()
    ckptctl("restore", "latest").check()
    assert_undisturbed(job)


def test_what_came_up_is_checkpointed_again_before_it_is_ended(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine
) -> None:
    """Its memory is restored onto the wrong GPU: the driver says yes, NVML shows otherwise."""
    gpu.set_cards(Card(number=1), Card(number=2))
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    gpu.set_faults("restore swap")
    failed = ckptctl("restore", "latest").check(9)
    assert f"had 1.00 MiB on GPU {Card(number=1).uuid}, and has 0 B on {Card(number=1).uuid}" in failed.stderr
    assert not job.processes()
    # A process that was killed with memory on the device leaves its file; one that was checkpointed before does not.
    assert gpu.pids_on(Card(number=1)) | gpu.pids_on(Card(number=2)) == set()


def test_device_memory_that_host_memory_cannot_take_is_refused(
    hold: Callable[[int], Job], ckptctl: CommandLine, tmp_path: Path
) -> None:
    job = hold(1 << 40)
    refused = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--to", tmp_path / "snapshot").check(14)
    assert "The job has 1.00 TiB on its GPUs, which move into host memory" in refused.stderr
    job.wait_for_lines(len(job.lines()) + 2)


def test_device_memory_counts_for_the_room_on_the_disk(
    hold: Callable[[int], Job], ckptctl: CommandLine, small_disk: Path
) -> None:
    little, much = hold(1 << 20), hold(64 << 20)
    refused = ckptctl("dump", "--pid", str(much.pid), "--cuda", "--to", small_disk / "much").check(14)
    assert "The snapshot needs about" in refused.stderr
    much.wait_for_lines(len(much.lines()) + 2)
    ckptctl("dump", "--pid", str(little.pid), "--cuda", "--to", small_disk / "little").check()


def test_images_without_the_bytes_that_left_the_device_are_no_snapshot(
    hold: Callable[[int], Job],
    train: Start,
    criu: Path,
    ckptctl: CommandLine,
    tmp_path: Path,
    assert_undisturbed: Judge,
) -> None:
    cutting = tmp_path / "criu-that-loses-pages"
    cutting.write_text(
        "#!/bin/sh\n"
        f'{criu} "$@" || exit\n'
        '[ "$1" = dump ] || exit 0\n'
        'for word; do [ "$last" = --images-dir ] || [ "$last" = -D ] && truncate -s 4096 "$word"/pages-*.img\n'
        "last=$word; done\n"
    )
    cutting.chmod(0o755)
    job = train()
    ckptctl.environment["CKPTCTL_CRIU"] = str(cutting)
    failed = ckptctl("dump", "--pid", str(job.pid), "--cuda", "--images", "directory").check(7)
    assert "the images hold only 4.00 KiB" in failed.stderr
    assert ckptctl.json("list")["result"] == []
    assert_undisturbed(job)


GPU_STEPS = ("lock-gpu", "checkpoint-gpu", "freeze", "describe", "commit")
LEAVE = "--leave-running"


@pytest.mark.parametrize(
    ("step", "leave"),
    [*((step, leave) for step in GPU_STEPS for leave in ((), (LEAVE,))), ("resume-gpu", (LEAVE,))],
)
@pytest.mark.parametrize("moment", ["started", "finished"])
def test_ckptctl_killed_at_a_cuda_step(
    step: str,
    moment: str,
    leave: tuple[str, ...],
    train: Start,
    ckptctl: CommandLine,
    cut_off: CutOff,
    assert_undisturbed: Judge,
) -> None:
    job = train()
    cut_off("SIGKILL", moment, step, "dump", "--pid", str(job.pid), "--cuda", *leave)
    (entry,) = ckptctl.json("recover")["result"]
    assert entry["error"] is None
    if not leave and (step, moment) == ("commit", "finished"):
        assert not job.processes()
        ckptctl("restore", "latest").check()
    assert_undisturbed(job)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("action", ["lock", "checkpoint"])
def test_ckptctl_killed_in_the_midst_of_a_driver_call(
    action: str, gpu: FakeGpu, train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    gpu.set_faults(f"{action} delay=700")
    dump = ckptctl.start("dump", "--pid", str(job.pid), "--cuda")
    wait_for(lambda: gpu.doing(job.pid) == action, 30, action)
    dump.kill()
    ckptctl("recover").check()
    gpu.set_faults()
    assert_undisturbed(job)


@pytest.mark.parametrize("step", ["restore", "look", "restore-gpu", "finish"])
@pytest.mark.parametrize("moment", ["started", "finished"])
def test_ckptctl_killed_in_a_restore(
    step: str, moment: str, train: Start, ckptctl: CommandLine, cut_off: CutOff, assert_undisturbed: Judge
) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    cut_off("SIGKILL", moment, step, "restore", "latest")
    ckptctl("recover").check()
    if not job.running():
        ckptctl("restore", "latest").check()
    assert_undisturbed(job)


def test_a_recovery_whose_gpu_part_fails_ends_what_came_up(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine, cut_off: CutOff, assert_undisturbed: Judge
) -> None:
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    cut_off("SIGKILL", "started", "restore-gpu", "restore", "latest")
    gpu.set_faults("unlock 999")
    ckptctl("recover")
    assert not job.processes()
    # A process that is killed with memory on the device leaves it there; one that was checkpointed before does not.
    assert gpu.used_bytes(Card()) == 0
    gpu.set_faults()
    ckptctl("restore", "latest").check()
    assert_undisturbed(job)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", ["lock-gpu", "checkpoint-gpu"])
@pytest.mark.parametrize("moment", ["started", "finished"])
def test_interrupted_at_a_cuda_step_the_job_runs_on(
    name: str, step: str, moment: str, train: Start, ckptctl: CommandLine, cut_off: CutOff, assert_undisturbed: Judge
) -> None:
    job = train()
    done = cut_off(name, moment, step, "dump", "--pid", str(job.pid), "--cuda")
    assert done.returncode == 128 + signal.Signals[name]
    assert "runs on" in done.stderr
    assert_undisturbed(job)
    assert_nothing_is_left(ckptctl)


def test_ctrl_c_ends_the_wait_for_the_lock(
    gpu: FakeGpu, train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    gpu.set_faults("lock busy")
    dump = ckptctl.start("dump", "--pid", str(job.pid), "--cuda", "--gpu-timeout", "10m")
    wait_for(lambda: gpu.doing(job.pid) == "lock", 30, "the lock")
    os.kill(dump.pid, signal.SIGINT)
    _, said = dump.communicate(timeout=20)
    assert dump.returncode == 130
    assert "runs on" in said
    gpu.set_faults()
    assert_undisturbed(job)


def test_a_job_without_a_gpu_costs_no_word_with_the_driver(
    gpu: FakeGpu, start_job: Jobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    # Whoever asked would wait for ever, and whoever loaded the bindings would fail.
    gpu.set_faults("nvml hang")
    package = tmp_path / "trap" / "cuda"
    package.mkdir(parents=True)
    trace = tmp_path / "loaded"
    (package / "__init__.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    (package.parent / "pynvml.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    ckptctl.environment |= {"PYTHONPATH": str(package.parent), "PYTHONPROFILEIMPORTTIME": "1"}
    job = start_job(["sleep", "1000"])
    imported = ckptctl("dump", "--pid", str(job.pid), "--leave-running").check().stderr
    assert "ckptctl.snapshot.dump" in imported
    assert "ckptctl.cuda.interface" not in imported
    assert not trace.exists()
    with_gpu = start_job(gpu.training(1000), environment=gpu.environment)
    with_gpu.wait_for_lines(3)
    gpu.set_faults()
    ckptctl("dump", "--pid", str(with_gpu.pid))
    assert trace.exists(), "the trap does not work"


@pytest.mark.parametrize("actions", [["lock"], ["lock", "checkpoint"]], ids=["locked", "checkpointed"])
def test_a_job_that_another_tool_has_in_hand_is_left_as_it_is(
    actions: list[str], gpu: FakeGpu, train: Start, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    job = train()
    tool = [gpu.bin / "cuda-checkpoint", "--pid", str(job.pid)]
    environment = {**os.environ, **gpu.environment}
    for action in actions:
        subprocess.run([*tool, "--action", action], env=environment, check=True)
    refused = ckptctl("dump", "--pid", str(job.pid), "--cuda").check(5)
    assert f"The GPU state of process {job.pid} is {actions[-1].removesuffix('ed')}ed:" in refused.stderr
    state = subprocess.run([*tool, "--get-state"], env=environment, capture_output=True, text=True, check=True)
    assert state.stdout.strip() == actions[-1] + "ed"
    for action in ("restore", "unlock")[2 - len(actions) :]:
        subprocess.run([*tool, "--action", action], env=environment, check=True)
    assert_undisturbed(job)
