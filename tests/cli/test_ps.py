"""ckptctl ps: which jobs of this machine could be dumped."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Jobs, wait_for
from support.fake_gpu import Card, fake_gpu
from support.shapes import started


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
        assert " ready " in line and "workers.py" in line


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
