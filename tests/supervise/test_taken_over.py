"""A supervisor that was taken for dead by another machine leaves the run to that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import CommandLine, Jobs, wait_for

pytestmark = pytest.mark.requires_criu

JOB = "import time\nfor step in range(1, 10_000):\n    print(f'step {step}', flush=True)\n    time.sleep(0.05)\n"


def taken_away(ckptctl: CommandLine) -> bytes:
    """What another machine does: the lock of the supervisor goes. Returns the record, which is the other one's now."""
    for lock in ckptctl.store.glob("locks/*.json"):
        if json.loads(lock.read_text())["wants"][0]["resource"].startswith("supervisor:"):
            record = next(ckptctl.store.glob("runs/*/supervision.json"))
            lock.unlink()
            return record.read_bytes()
    raise AssertionError("there is no supervisor")


def started(ckptctl: CommandLine, *words: str) -> subprocess.Popen[str]:
    process = ckptctl.start(*words)
    wait_for(lambda: [*ckptctl.store.glob("runs/*/supervision.json")], 30, "the supervisor")
    wait_for(lambda: ckptctl.json("status")["result"]["runs"][0]["progress"]["step"], 30, "a step")
    return process


def test_the_job_of_a_run_is_ended(ckptctl: CommandLine) -> None:
    process = started(ckptctl, "run", "--run", "gpt", "--", sys.executable, "-c", JOB)
    pid = ckptctl.json("status")["result"]["runs"][0]["pid"]
    record = taken_away(ckptctl)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 11, said
    assert "taken over by another machine" in said
    assert not Path(f"/proc/{pid}").exists()
    assert (ckptctl.store / "runs/gpt/supervision.json").read_bytes() == record
    assert not [*ckptctl.store.glob("runs/gpt/2*")], "no snapshot that the other machine would take for its own"


def test_a_watched_job_runs_on(ckptctl: CommandLine, start_job: Jobs) -> None:
    job = start_job([sys.executable, "-c", JOB])
    job.wait_for_lines(3)
    process = started(ckptctl, "watch", "--pid", str(job.pid), "--run", "gpt")
    taken_away(ckptctl)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 11, said
    job.wait_for_lines(len(job.lines()) + 3)
