"""A job that reports is dumped and restored, also in the midst of a report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ckptctl.progress.source import Unreadable
from ckptctl.progress.status_file import StatusFile
from support import CommandLine, Job, Jobs, wait_for

pytestmark = pytest.mark.requires_criu

# Its disk takes its time, so that most of the time a report is being written.
_REPORTING = """
import itertools, os, sys, time
import ckptctl
write = os.write
os.write = lambda *words: (time.sleep(0.05), write(*words), time.sleep(0.05))[1]
for step in itertools.count(1):
    print(step, flush=True)
    time.sleep(0.05)
    ckptctl.report(step=step, loss=1 / step)
    if step % 10 == 0:
        ckptctl.report(epoch=step // 10, val_loss=2 / step)
"""


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return tmp_path / "job-status.json"


@pytest.fixture
def reporting(start_job: Jobs, status: Path) -> Job:
    """A job that reports each of its steps."""
    job = start_job([sys.executable, "-c", _REPORTING], environment={"CKPTCTL_STATUS": str(status)}, append=True)
    wait_step(status, 12)
    return job


def wait_step(status: Path, step: int) -> None:
    wait_for(lambda: (step_in(status) or 0) >= step, 60, f"a report of step {step}")


def written_now(job: Job) -> bool:
    """Whether a report is being written at this moment."""
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{job.pid}/fd").iterdir()]
    except FileNotFoundError:  # one was closed meanwhile
        return True
    return any(".job-status.json." in link for link in links)


def step_in(status: Path) -> int | None:
    try:
        return StatusFile(status).read().step
    except Unreadable:  # the first report after a restore is written in place
        return None


def test_every_snapshot_of_a_job_that_reports_is_restored(reporting: Job, status: Path, ckptctl: CommandLine) -> None:
    """The job goes on and reports again and again: the file that it had open at the dump has long been renamed."""
    ids = []
    for _ in range(4):
        ids.append(ckptctl.json("dump", "--pid", str(reporting.pid), "--leave-running")["result"]["id"])
        wait_step(status, (step_in(status) or 0) + 3)
    opened = [file["path"] for each in ids for file in ckptctl.json("show", each)["result"]["manifest"]["open_files"]]
    assert any(path.startswith(str(status.with_name(f".{status.name}."))) for path in opened)
    for each in reversed(ids):
        wait_for(lambda: not written_now(reporting), 30, "a moment between two reports")
        reporting.kill()
        status.unlink()
        ckptctl("restore", each).check()
        steps = [int(line) for line in reporting.lines()]
        assert steps == list(range(1, len(steps) + 1))
        wait_step(status, steps[-1] + 3)
        assert StatusFile(status).read().metrics.keys() == {"loss", "val_loss"}


def test_a_report_that_a_restore_took_back_is_not_taken_for_the_new_one(
    reporting: Job, status: Path, ckptctl: CommandLine
) -> None:
    ckptctl("dump", "--pid", str(reporting.pid), "--leave-running").check()
    dumped = len(reporting.lines())
    wait_step(status, dumped + 15)
    reporting.kill()
    ckptctl("restore", "latest").check()
    wait_for(lambda: (step_in(status) or 10**9) < dumped + 10, 30, "a report of an earlier step")
    steps = StatusFile(status).read().metric_steps
    assert max(steps.values()) <= dumped + 10
