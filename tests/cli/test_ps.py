"""ckptctl ps: which jobs of this machine could be dumped."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Jobs, wait_for
from support.command_line import PROGRAM
from support.fake_gpu import Card, fake_gpu
from support.shapes import FOLDER, Shape, started


def listed(ckptctl: CommandLine, *words: str, environment: dict[str, str] | None = None) -> dict[int, Any]:
    """The jobs of `ckptctl ps` by pid."""
    done = ckptctl("ps", *words, "--json", environment=environment).check()
    return {job["pid"]: job for job in done.document["result"]}


def test_a_job_is_one_line_with_its_root(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "workers") as shape:
        shape.wait_steps(3)
        jobs = listed(ckptctl)
        job = jobs[shape.pid]
        assert (job["ready"], job["blockers"], job["reason"]) == (True, [], None)
        assert job["user"] == getpass.getuser()
        assert job["processes"] == len(shape.job.processes())
        assert job["memory_bytes"] > 1 << 20
        assert job["gpu_bytes"] is None
        assert 0 <= job["age_s"] < 600
        assert job["command"][0] == sys.executable
        assert not set(shape.job.processes()[1:]) & jobs.keys()

        (line,) = (line for line in ckptctl("ps").check().stdout.splitlines() if line.split()[0] == str(shape.pid))
        assert " ready " in line and " ".join(job["command"])[:70] in line


def test_a_job_that_cannot_be_dumped_has_its_blocker(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "perf_event") as shape:
        shape.wait_steps(3)
        job = listed(ckptctl)[shape.pid]
        assert (job["ready"], job["blockers"]) == (False, ["perf-event"])
        assert f"Process {shape.pid} (" in job["reason"]
        (line,) = (line for line in ckptctl("ps").check().stdout.splitlines() if line.split()[0] == str(shape.pid))
        assert " perf-event " in line


def test_other_programs_are_listed_where_all_are_asked_for(start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job(["sleep", "60"])
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    assert job.pid not in listed(ckptctl)
    assert listed(ckptctl, "--all")[job.pid]["command"] == ["sleep", "60"]


@pytest.mark.requires_criu
def test_a_job_in_a_pid_namespace_is_listed_and_not_what_reaps_for_it(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        ckptctl("dump", "--pid", str(shape.pid)).check()
        pid = ckptctl.json("restore", "latest", "--new-pid-namespace")["result"]["pid"]
        jobs = listed(ckptctl)
        assert "append_log.py" in " ".join(jobs[pid]["command"])
        assert jobs[pid]["ready"]
        assert not any("ckptctl" in word for job in of(shape, jobs) for word in job["command"])
        assert [job["pid"] for job in of(shape, jobs)] == [pid]
        ckptctl("dump", "--pid", str(pid)).check()


def test_a_job_that_is_kept_is_one_line_with_its_own_command(start_job: Jobs, ckptctl: CommandLine) -> None:
    """Its root is the keeper, which belongs to what is dumped; who supervises it is no job."""
    words = [sys.executable, FOLDER / "append_log.py", "log", "--seconds", "60"]
    job = start_job([PROGRAM, "run", "--run", "kept", "--", *words], environment=ckptctl.environment)
    shape = Shape(job, job.folder / "log", job.pid)
    wait_for(shape.log.exists, 60, "the job")
    shape.wait_steps(3)
    (found,) = of(shape, listed(ckptctl))
    assert found["command"] == [str(word) for word in words]
    assert found["ready"]
    assert found["pid"] != job.pid
    assert found["processes"] == 2


def of(shape: Shape, jobs: dict[int, Any]) -> list[Any]:
    """Those of the jobs that have to do with this shape."""
    return [job for pid, job in jobs.items() if pid in shape.job.processes()]


@pytest.mark.requires_fake_gpu
def test_a_job_with_device_memory_shows_it(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with fake_gpu(tmp_path / "gpu", 580, Card()) as machine:
        job = start_job(machine.training(100_000), environment=machine.environment)
        wait_for(lambda: machine.used_bytes(Card()) > 0, 20, "device memory")
        wait_for(lambda: (job.folder / "stdout").read_text().count("\n") > 2, 20, "steps")
        found = listed(ckptctl, environment=machine.environment)[job.pid]
        assert found["gpu_bytes"] > 0
        assert found["ready"]
        result = ckptctl("check", "--pid", str(job.pid), "--json", environment=machine.environment).document["result"]
        assert [user["pid"] for user in result["job"]["gpu"]] == [job.pid]
        assert result["job"]["estimate"]["device_bytes"] == found["gpu_bytes"]
