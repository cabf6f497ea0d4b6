"""What the criu on this machine is and says of itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.criu import program
from ckptctl.criu.program import Criu, CriuMissing

# Names as in `criu check --help`; those that ckptctl has no use for are left out, each costs a start of criu.
FEATURES: Final = ("get_rseq_conf", "seccomp_suspend", "can_map_vdso", "network_lock_nftables", "timens")
_PLUGIN_FOLDER: Final = re.compile(r"--libdir\s.*\(by default ([^)]+)\)")
_SAID_LINES: Final = 3
# What `criu check` ends with where it could try everything, but not all of it worked (criu/cr-check.c).
_TRIED: Final = "Does not look good"
_LEAST_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class CriuFacts:
    """`program` is None where there is none that runs, and `missing` then says why, in a sentence.

    `looks_good` is the verdict of `criu check`, None where it was not asked or did not answer, with its complaints in
    `said`; `starts` is false where criu gives up before it has checked anything, as every dump would. `features` are
    those of FEATURES that it has. `plugins` are the files in its plugin folder.
    """

    program: Criu | None
    missing: str | None = None
    looks_good: bool | None = None
    starts: bool = True
    said: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    plugin_folder: str | None = None
    plugins: tuple[str, ...] = ()
    compression: bool = False
    direct_io: bool = False


def read_criu(environment: Mapping[str, str], limit_s: float) -> CriuFacts:
    """Find it and ask it, all within `limit_s`; nothing is dumped. A program that hangs counts as not answering."""
    deadline = time.monotonic() + limit_s
    try:
        found = program.locate(environment, timeout_s=limit_s)
    except CriuMissing as error:
        return CriuFacts(None, error.message)
    try:
        return _asked(found, deadline)
    except command.CommandFailed as error:
        return CriuFacts(found, said=(error.message,))


def _asked(found: Criu, deadline: float) -> CriuFacts:
    # An ordinary user must say so, or criu refuses (criu/crtools.c).
    rights = () if os.geteuid() == 0 else ("--unprivileged",)
    check = _say(found, deadline, "check", *rights)
    output = check.stderr + check.stdout
    manual = _say(found, deadline, "--help").stdout
    folder = _PLUGIN_FOLDER.search(manual)
    return CriuFacts(
        found,
        looks_good=check.status == 0,
        starts=check.status == 0 or _TRIED in output,
        said=_complaints(output),
        features=frozenset(
            name for name in FEATURES if _say(found, deadline, "check", *rights, "--feature", name).status == 0
        ),
        plugin_folder=folder[1] if folder else None,
        plugins=_plugins(folder[1]) if folder else (),
        compression="--compress" in manual,
        direct_io="--image-io-mode" in manual,
    )


def _say(found: Criu, deadline: float, *arguments: str) -> command.Completed:
    left_s = max(_LEAST_S, deadline - time.monotonic())
    return command.run((found.path, *arguments), timeout_s=left_s, ok=None)


def _complaints(output: str) -> tuple[str, ...]:
    """The last errors without their place in the source, or what was said instead."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [re.sub(r"^Error \([^)]*\): ", "", line) for line in lines if line.startswith("Error")]
    return tuple((errors or lines)[-_SAID_LINES:])


def _plugins(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in Path(folder).glob("*.so")))
    except OSError:
        return ()
