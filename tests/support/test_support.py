"""The jobs that tests start are dumped, restored and stopped: they must be gone afterwards all the same."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support import Jobs, lines, python, wait_for
from support.capabilities import required
from support.jobs import state

_WITH_CHILD = """
import os, time
print(os.getpid(), flush=True)
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
time.sleep(1000)
"""


def test_killing_a_job_ends_children_in_other_sessions_and_stopped_ones(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs(python(_WITH_CHILD))
    pids = [int(line) for line in job.wait_for_lines(2)]
    assert sorted(job.processes()) == sorted(pids)
    os.kill(pids[1], signal.SIGSTOP)
    wait_for(lambda: state(pids[1]) == "T", what="stopped child")
    assert job.running()
    jobs.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids if state(pid) != "Z")


@pytest.mark.requires_criu
def test_killing_a_job_ends_what_criu_restored(tmp_path: Path, criu: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs(python(_WITH_CHILD))
    job.wait_for_lines(2)
    images = tmp_path / "images"
    images.mkdir()
    base: list[str | Path] = ["-D", images, "-o", "log", "--shell-job"]
    subprocess.run([criu, "dump", "-t", str(job.pid), *base], check=True, timeout=60)
    job.wait_gone()
    subprocess.run([criu, "restore", "-d", *base], check=True, timeout=60)
    assert len(job.processes()) == 2
    jobs.close()
    assert job.processes() == []


def test_a_job_that_must_not_be_reaped_stays_a_zombie(start_job: Jobs) -> None:
    job = start_job(python("pass"), reap=False)
    wait_for(lambda: state(job.pid) == "Z", what="a zombie")
    assert job.wait_status() == 0
    assert state(job.pid) == "X"


def test_an_unfinished_line_is_not_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert lines(log) == []
    log.write_text("one\ntw")
    assert lines(log) == ["one"]


def test_required_capabilities_are_known_names() -> None:
    assert required("criu, torch,") == {"criu", "torch"}
    with pytest.raises(ValueError, match="cuba"):
        required("criu,cuba")
