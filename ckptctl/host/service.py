"""systemd: its managers, and the service that a process is the main process of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from ckptctl import command

# Set for the process that a service starts, and for nobody below it by that value (systemd.exec(5), from 248 on).
_MAIN_PROCESS: Final = "SYSTEMD_EXEC_PID"
_SERVICE: Final = ".service"
_USER_MANAGER: Final = "user@"
_BOOTED: Final = Path("/run/systemd/system")  # sd_booted(3)
_ASKED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Manager:
    """The system's systemd, or the user's own."""

    of_user: bool

    @property
    def words(self) -> tuple[str, ...]:
        """Its systemctl."""
        return ("systemctl", "--user") if self.of_user else ("systemctl",)

    def call(self, *words: str, timeout_s: float = _ASKED_S) -> None:
        """Ask it something. Raises command.CommandMissing, command.CommandFailed."""
        command.run((*self.words, *words), timeout_s=timeout_s)


def running_manager(*, of_user: bool) -> Manager | None:
    """The one that looks after this machine; None where none does."""
    return Manager(of_user) if _BOOTED.is_dir() else None


@dataclass(frozen=True, slots=True)
class Service:
    """A unit of the system's manager, or of the user's own."""

    name: Annotated[str, "name of the unit"]
    of_user: Annotated[bool, "whether it is one of `systemctl --user`"]

    @property
    def manager(self) -> Manager:
        """Whose unit it is."""
        return Manager(self.of_user)


def service_of(pid: int, environment: Mapping[str, str], groups: str) -> Service | None:
    """The service whose main process has this pid and environment; `groups` is the text of its /proc/PID/cgroup."""
    if environment.get(_MAIN_PROCESS) != str(pid):
        return None
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        names = [name for name in path.split("/") if name.endswith(_SERVICE)]
        if controllers in ("", "name=systemd") and names and not names[-1].startswith(_USER_MANAGER):
            return Service(names[-1], of_user=any(name.startswith(_USER_MANAGER) for name in names[:-1]))
    return None
