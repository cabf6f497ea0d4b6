"""Acting on processes."""

from __future__ import annotations

import subprocess
import sys

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
