"""What is predicted of a root without some capability is what CRIU does: containers have such roots."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import wait_for

_PREDICT = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from ckptctl.preflight import ready
from ckptctl.preflight.finding import Level
from ckptctl.preflight.survey import Inquiry, gather

facts = gather(Inquiry(Path(sys.argv[1]), os.environ, datetime.now(UTC), limit_s=30))
print(*(one.check for one in ready.findings(facts) if one.level is Level.ERROR))
"""
_DUMP_STOPPERS = {"privileges", "criu-check", "criu"}
_RESTORE_STOPPERS = _DUMP_STOPPERS | {"restore-privileges"}

pytestmark = [
    pytest.mark.requires_criu,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give up capabilities"),
]


@dataclass(frozen=True, slots=True)
class Weakened:
    """Root without some capabilities, and a process that was started so."""

    prefix: tuple[str, ...]
    pid: int

    def succeeds(self, *argv: str | Path) -> bool:
        done = subprocess.run([*self.prefix, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
        return done.returncode == 0

    def predicted(self, folder: Path, criu: Path) -> set[str]:
        argv = [*self.prefix, sys.executable, "-c", _PREDICT, str(folder)]
        environment = {**os.environ, "CKPTCTL_CRIU": str(criu)}
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment, timeout=120)
        return set(done.stdout.split())


@pytest.fixture
def weakened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Weakened]:
    prefix = ("setpriv", f"--bounding-set=-{request.param}")
    # A pid that nobody takes while it is away, and no terminal: both would be troubles of their own.
    quiet = subprocess.DEVNULL
    child = subprocess.Popen([*prefix, "sleep", "600"], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    yield Weakened(prefix, child.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize(
    "weakened",
    ["net_raw", "setuid", "sys_ptrace", "sys_admin", "net_admin", "setpcap", "sys_chroot"],
    indirect=True,
)
def test_what_is_predicted_without_a_capability_happens(weakened: Weakened, tmp_path: Path, criu: Path) -> None:
    stoppers = weakened.predicted(tmp_path, criu)
    images = tmp_path / "images"
    images.mkdir()
    places = ("--images-dir", images, "--network-lock", "skip", "--no-default-config", "-o", "log")
    dumped = weakened.succeeds(criu, "dump", "--tree", str(weakened.pid), "--leave-stopped", *places)
    assert dumped is not bool(stoppers & _DUMP_STOPPERS), stoppers
    if not dumped:
        return
    os.kill(weakened.pid, signal.SIGKILL)
    os.waitpid(weakened.pid, 0)
    restored = weakened.succeeds(criu, "restore", *places[:2], *places[4:], "--restore-detached")
    assert restored is not bool(stoppers & _RESTORE_STOPPERS), stoppers
