"""Dumps and restores by hand of a job that belongs to a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support import CommandLine, Jobs
from support.supervised import Supervised, log_of, trains

pytestmark = pytest.mark.requires_criu

JOB = trains(60, 0.02)


def test_a_dump_by_hand_goes_to_the_run_of_the_job(supervise: Supervised, ckptctl: CommandLine) -> None:
    """Whichever of its processes is named; and nobody ends, or doubles, what is looked after."""
    first = supervise(job=JOB, until=10)
    supervise.wait_step(10)
    report = ckptctl.json("dump", "--pid", str(supervise.job()), "--leave-running")["result"]
    assert (report["run"], report["progress"]["step"]) == ("gpt", 10)
    assert supervise.progress(report["id"]).step == 10
    refused = ckptctl("dump", "--pid", str(supervise.keeper())).check(11).stderr
    assert f"The run gpt is looked after by process {first.process.pid} on " in refused
    assert "--leave-running" in refused
    assert "CKPT_NOW" in refused
    assert f"process {supervise.keeper()} " in ckptctl("restore", "latest").check(15).stderr
    supervise.allow(20)
    supervise.wait_step(20)
    first.process.kill()
    first.process.wait()
    job = supervise.job()
    ended = ckptctl.json("dump", "--pid", str(job))["result"]
    assert (ended["run"], ended["progress"]["step"]) == ("gpt", 20)
    second = supervise(job=JOB).check(0)
    assert f"goes on from {ended['id']}, at step 20 " in second.said
    assert supervise.log() == log_of(60)


def test_jobs_that_share_a_name_are_told_apart(ckptctl: CommandLine, start_job: Jobs, tmp_path: Path) -> None:
    jobs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "job.py").write_text("import time\ntime.sleep(300)\n")
        jobs.append(start_job([sys.executable, "job.py"], cwd=folder))
    said = [ckptctl("dump", "--pid", str(job.pid), "-R").check().stderr for job in (jobs[0], jobs[0], jobs[1])]
    assert ["is of another job" in one for one in said] == [False, False, True]
    assert f"in {tmp_path / 'one'}" in said[2]
    assert "--run NAME" in said[2]
    assert "is of another job" not in ckptctl("dump", "--pid", str(jobs[0].pid), "-R", "--run", "job").check().stderr
