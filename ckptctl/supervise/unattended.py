"""A run that the machine itself starts, and what is done for its snapshots now and then."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from ckptctl.errors import UsageError
from ckptctl.store.layout import Store


class CannotBeWritten(UsageError):
    """Something in a command line or a path that a unit file or a crontab cannot express."""

    code = "E_CANNOT_BE_WRITTEN"


@dataclass(frozen=True, slots=True)
class Unattended:
    """What is to be started by itself, by whom and where.

    `options` are those of `ckptctl run` but for the name and the store, `keep` the options that say which snapshots are
    kept. `environment` is all that the job gets besides what the machine gives it, and is readable by everybody;
    `environment_files` hold what is not. `drained` is the file that exists while the machine is drained.
    """

    run: str
    user: str | None
    program: Path
    store: Path
    drained: Path
    cwd: Path
    umask: int
    environment: tuple[tuple[str, str], ...]
    environment_files: tuple[Path, ...]
    options: tuple[str, ...]
    keep: tuple[str, ...]
    command: tuple[str, ...]
    grace_s: float

    @property
    def latest(self) -> Path:
        """What is there once the run has a snapshot."""
        return Store(self.store).run(self.run).latest

    @property
    def run_words(self) -> tuple[str, ...]:
        """The command line that starts the run, or goes on with it."""
        return (*self._ckptctl("run"), *self.options, *self.keep, "--", *self.command)

    @property
    def forget_words(self) -> tuple[str, ...]:
        """The command line that lets go what is not to be kept, and gives the space back; only with a policy."""
        return (*self._ckptctl("forget"), *self.keep, "--prune", "--lock-wait", "10m", "--quiet")

    @property
    def verify_words(self) -> tuple[str, ...]:
        """The command line that reads every byte of its snapshots."""
        return (*self._ckptctl("verify"), "--read-data", "--quiet")

    @property
    def scatter(self) -> int:
        """A number that differs from run to run, so that not all of them use the disk at the same minute."""
        return zlib.crc32(f"{self.store}/{self.run}".encode(errors="surrogateescape"))

    def _ckptctl(self, name: str) -> tuple[str, ...]:
        return (str(self.program), name, "--run", self.run, "--store", str(self.store))
