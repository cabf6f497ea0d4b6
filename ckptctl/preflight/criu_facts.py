"""What the criu on this machine is and says of itself."""

from __future__ import annotations

import re
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


@dataclass(frozen=True, slots=True)
class CriuFacts:
    """`program` is None where there is none that runs, and `missing` then says why, in a sentence.

    `looks_good` is the verdict of `criu check`, None where it was not asked or did not answer, with its last lines in
    `said`. `features` are those of FEATURES that it has. `plugins` are the files in its plugin folder.
    """

    program: Criu | None
    missing: str | None = None
    looks_good: bool | None = None
    said: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    plugin_folder: str | None = None
    plugins: tuple[str, ...] = ()
    compression: bool = False
    direct_io: bool = False


def read_criu(environment: Mapping[str, str], limit_s: float) -> CriuFacts:
    """Find it and ask it; nothing is dumped. A program that does not answer in time counts as not answering."""
    try:
        found = program.locate(environment)
    except CriuMissing as error:
        return CriuFacts(None, error.message)
    try:
        return _asked(found, limit_s)
    except command.CommandFailed as error:
        return CriuFacts(found, said=(error.message,))


def _asked(found: Criu, limit_s: float) -> CriuFacts:
    check = _say(found, limit_s, "check")
    manual = _say(found, limit_s, "--help").stdout
    folder = _PLUGIN_FOLDER.search(manual)
    return CriuFacts(
        found,
        looks_good=check.status == 0,
        said=tuple((check.stderr + check.stdout).strip().splitlines()[-_SAID_LINES:]),
        features=frozenset(name for name in FEATURES if _say(found, limit_s, "check", "--feature", name).status == 0),
        plugin_folder=folder[1] if folder else None,
        plugins=_plugins(folder[1]) if folder else (),
        compression="--compress" in manual,
        direct_io="--image-io-mode" in manual,
    )


def _say(found: Criu, limit_s: float, *arguments: str) -> command.Completed:
    return command.run((found.path, *arguments), timeout_s=limit_s, ok=None)


def _plugins(folder: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in Path(folder).glob("*.so")))
    except OSError:
        return ()
