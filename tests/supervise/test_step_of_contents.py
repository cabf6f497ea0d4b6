"""The step that a snapshot names is that of what it holds, however long the dump took to begin."""

from __future__ import annotations

import signal

import pytest

from ckptctl.store import manifest_json
from support.supervised import Supervised, log_of, trains

pytestmark = pytest.mark.requires_criu

STEPS = 3000
JOB = trains(STEPS, 0.002)


def logged_steps(supervise: Supervised, snapshot: str) -> int:
    """How many steps the job had printed when it stood still."""
    files = manifest_json.read(supervise.run.snapshot(snapshot).manifest).open_files
    size = max(one.size_bytes or 0 for one in files if one.path == str(supervise.run.stdout))
    return len(supervise.run.stdout.read_bytes()[:size].splitlines())


def test_it_is_that_of_the_frozen_job(supervise: Supervised) -> None:
    first = supervise("--every", "150steps", "--min-interval", "100ms", job=JOB)
    saved = first.wait_saved(2)[:2]
    for name in saved:
        step = supervise.progress(name).step or 0
        assert step <= logged_steps(supervise, name)
        assert f"Snapshot {name} at step {step} " in first.said
    first.signal(signal.SIGTERM)
    first.check(75)
    last = supervise.run.latest.readlink().name
    step = supervise.progress(last).step
    assert step == logged_steps(supervise, last) == len(supervise.log())
    assert f"Snapshot {last} at step {step} (SIGTERM)" in first.said
    assert supervise.record.progress.step == step
    assert f"goes on from {last}, at step {step} " in supervise(job=JOB).check(0).said
    assert supervise.log() == log_of(STEPS)
