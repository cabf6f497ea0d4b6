"""The priority of work that nobody waits for, and of the moments in which somebody does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptctl.host.priority import make_lowest

# Says what it has before, during and after the block.
RAISES = """
import os, subprocess
from ckptctl.host.priority import make_lowest, raised
def say():
    disk = subprocess.run(["ionice", "-p", str(os.getpid())], capture_output=True, text=True).stdout.strip()
    print(os.getpriority(os.PRIO_PROCESS, 0), disk.partition(":")[0])
make_lowest(os.getpid())
say()
with raised():
    say()
say()
"""


def test_a_process_gets_what_no_other_wants() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        make_lowest(process.pid)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        autogroup = Path(f"/proc/{process.pid}/autogroup")
        assert not autogroup.exists() or autogroup.read_text().split()[1:] == ["nice", "19"]
    finally:
        process.kill()
        process.wait()
    make_lowest(process.pid)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ionice"), reason="needs root, and ionice to look")
def test_while_others_wait_it_has_its_usual_priority() -> None:
    said = subprocess.run(
        [sys.executable, "-c", RAISES], check=True, capture_output=True, text=True, start_new_session=True
    )
    before, during, after = said.stdout.splitlines()
    assert before == after == "19 idle"
    assert during.startswith("0 ")
    assert "idle" not in during
