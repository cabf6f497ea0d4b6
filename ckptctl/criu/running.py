"""criu programs that run: found by the images folder on their command line, whoever started them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

IMAGES_OPTION = "-D"
LOGS_OPTION = "-W"


def find_running(folder: Path, option: str = IMAGES_OPTION) -> tuple[int, ...]:
    """The pids (as seen from here) of the processes with `-D IMAGES`, or LOGS_OPTION LOGS, on their command line.

    That is criu itself, what it was started through (nsenter, unshare), and tasks that it is about to restore, which
    begin as copies of it. The folder must be written as it was when criu was started.
    """
    wanted = [os.fsencode(option), os.fsencode(folder)]
    own = os.getpid()
    return tuple(pid for pid in _all_pids() if pid != own and _has_pair(_command_line(pid), wanted))


def cancel(pid: int) -> None:
    """Ask the `criu dump` with this pid to stop, safely for the tree: its next write to an image fails (EFBIG).

    criu then takes its code out of the tasks, lets them run on and exits by itself with a failure. Killing it instead
    would leave that code in the tasks. Works because `command.start` leaves SIGXFSZ ignored. A criu that has
    written everything ends as if nothing had happened. A process that is gone is no error. Raises PermissionError.
    """
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    except ProcessLookupError:
        return


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _has_pair(words: list[bytes], pair: list[bytes]) -> bool:
    return any(words[index : index + 2] == pair for index in range(len(words) - 1))
