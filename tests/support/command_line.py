"""The command line of ckptctl, run as the process that users run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = Path(sys.executable).with_name("ckptctl")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The JSON document on standard output; AssertionError where that is not exactly one."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise AssertionError(f"Not one JSON document ({error}): {self}") from error

    def check(self, status: int = 0) -> Ended:
        """This, if the exit status is `status`; AssertionError with all output else."""
        assert self.status == status, f"exit status {self.status} instead of {status}\n{self.stdout}\n{self.stderr}"
        return self


class CommandLine:
    """Runs `ckptctl` with a store and configuration of its own: nothing of the user's is read or written."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.state = folder / "state"
        home = folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CKPTCTL_", "XDG_"))}
        # The one setting that says something about the machine instead of about the user.
        criu = {"CKPTCTL_CRIU": os.environ["CKPTCTL_CRIU"]} if "CKPTCTL_CRIU" in os.environ else {}
        own = {"HOME": str(home), "CKPTCTL_STORE": str(self.store), "CKPTCTL_STATE": str(self.state)}
        self.environment = {**inherited, **criu, **own}
        self._started: list[subprocess.Popen[str]] = []

    def __call__(
        self,
        *words: str | os.PathLike[str],
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 120,
        prefix: Sequence[str] = (),
    ) -> Ended:
        """Run `ckptctl WORDS` to its end, without a terminal; subprocess.TimeoutExpired after `timeout_s`.

        `prefix` is a command that runs it in its own place (`setpriv ...`).
        """
        done = subprocess.run(
            [*prefix, PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**self.environment, **(environment or {})},
            cwd=cwd,
            timeout=timeout_s,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str | os.PathLike[str], timeout_s: float = 120) -> Any:
        """The document of `ckptctl WORDS --json`, which must succeed."""
        return self(*words, "--json", timeout_s=timeout_s).check().document

    def start(
        self, *words: str | os.PathLike[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start `ckptctl WORDS` in a session of its own and go on; what still runs at the end of the test is killed."""
        process = subprocess.Popen(
            [PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**self.environment, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Kill what `start` started and what still runs."""
        for process in self._started:
            process.kill()
            process.communicate()
