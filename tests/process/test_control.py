"""Acting on processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptctl.process import control
from support import Jobs, wait_for
from support.jobs import state

# Becomes the parent of what a shell leaves behind, and looks at its children twice once that has ended.
_ADOPTS = """
import subprocess, time
from pathlib import Path
from ckptctl.process import control

control.adopt_orphans()
subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"], check=True)
own = subprocess.Popen(["sleep", "1000"])
until = time.monotonic() + 30
while not (ended := control.reap_adopted(frozenset())) and time.monotonic() < until:
    time.sleep(0.01)
print(len(ended), len(control.reap_adopted(ended)), len(control.reap_adopted(frozenset())))
own.kill()
print(own.wait())
"""


def test_orphans_that_were_adopted_and_ended_are_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", _ADOPTS], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "0", "0", "-9"], done.stderr


@pytest.mark.requires_namespaces
def test_who_is_on_its_way_out_is_told_from_who_lives_and_from_zombies(start_job: Jobs) -> None:
    """The first process of a PID namespace ends only once all in there are reaped, one by its parent out here."""
    outer = start_job(["unshare", "--pid", "--fork", "sleep", "1000"])
    first = child_of(outer.pid)
    parent = start_job(["nsenter", "--target", str(first), "--pid", "sleep", "1000"])
    zombie = child_of(parent.pid)
    assert not control.ending([first, zombie, os.getpid()])
    parent.signal(signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: state(zombie) == "Z", 30, "the death of all in there")
    assert control.ending([zombie, first])
    assert not control.ending([zombie])
    parent.signal(signal.SIGKILL)
    outer.wait_gone()
    assert not control.ending([first, zombie])


def child_of(pid: int) -> int:
    """Its only child, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_for(lambda: children.read_text().split(), 30, f"a child of {pid}")[0])
