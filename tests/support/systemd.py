"""A systemd of its own: a real one, process 1 of namespaces, with units in a folder of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from support.jobs import state
from support.waiting import wait_for

_PROGRAM: Final = Path("/lib/systemd/systemd")
_GROUPS: Final = Path("/sys/fs/cgroup")
_UNSHARE: Final = ("unshare", "--fork", "--pid", "--mount", "--mount-proc", "--cgroup", "--uts", "--ipc")
# $1: the folder that becomes /etc/systemd/system. Each group of ours becomes the root that this systemd sees.
_BOOT: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount --bind "$1" /etc/systemd/system
export container=other
exec /lib/systemd/systemd --system --unit=nothing.target --log-target=null --show-status=no
"""


class Systemd:
    """A manager that runs; `units` is its /etc/systemd/system."""

    def __init__(self, folder: Path) -> None:
        self.units = folder / "units"
        self.units.mkdir(parents=True)
        (self.units / "nothing.target").write_text("[Unit]\nDescription=Nothing\n")
        self._groups = _own_groups(f"ckptctl-test-{os.getpid()}-{id(self):x}")
        self._log = (folder / "systemd.log").open("wb")
        self._process = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _BOOT, "boot", self.units],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=lambda: _join(self._groups),
        )
        try:
            self._first = wait_for(self._find_first, 20, "systemd's own process")
            wait_for(self._answers, 20, f"systemd, {self.log()!r}")
        except BaseException:
            self.close()
            raise

    def __call__(
        self, *words: str | os.PathLike[str], environment: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program where this systemd is process 1, to its end."""
        return subprocess.run(
            ["nsenter", f"--target={self._first}", "--mount", "--pid", "--cgroup", "--uts", "--ipc", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            timeout=timeout_s,
        )

    def systemctl(self, *words: str, timeout_s: float = 120) -> str:
        """What systemctl says; AssertionError where it fails."""
        done = self("systemctl", *words, timeout_s=timeout_s)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def log(self) -> str:
        """What was said before it ran."""
        return Path(self._log.name).read_text(errors="replace")

    def close(self) -> None:
        """End it, and with it everything in its namespace."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        first = getattr(self, "_first", None) or self._find_first()
        if first:
            with suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
            wait_for(lambda: state(first) in "XZ", 30, "the end of systemd")
        self._process.wait(30)
        self._log.close()
        for group in self._groups:
            _remove(group)

    def _find_first(self) -> int | None:
        """Process 1 of the namespace: the child of unshare."""
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def _answers(self) -> bool:
        return self("systemctl", "is-active", "nothing.target").returncode == 0


@cache
def has_systemd() -> bool:
    """Whether a systemd of our own can be run here, by root and in namespaces."""
    if os.geteuid() != 0 or not _PROGRAM.exists():
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            Systemd(Path(folder)).close()
        except (AssertionError, OSError, subprocess.SubprocessError):
            return False
    return True


def _own_groups(name: str) -> tuple[Path, ...]:
    """A group of ours below each of the hierarchies that can be written to, so that it manages nothing but that."""
    tops = (
        [_GROUPS] if (_GROUPS / "cgroup.controllers").exists() else [one for one in _GROUPS.iterdir() if one.is_dir()]
    )
    made = []
    for top in tops:
        with suppress(OSError):
            (top / name).mkdir()
            made.append(top / name)
    return tuple(made)


def _join(groups: tuple[Path, ...]) -> None:
    for group in groups:
        with suppress(OSError):
            (group / "cgroup.procs").write_text("0")


def _remove(group: Path) -> None:
    for below in sorted(group.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if below.is_dir():
            with suppress(OSError):
                below.rmdir()
    with suppress(OSError):
        group.rmdir()
