"""Which criu program is used, and what it can do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.file_capabilities import file_capabilities
from ckptctl.host.machine import Machine

VARIABLE: Final = "CKPTCTL_CRIU"
PRIVATE_PROGRAM: Final = Path("/opt/ckptctl/criu/bin/criu")
# Earlier ones lose the job when a plugin fails, and know nothing of the kernel's vvar_vclock area (Linux 6.13).
OLDEST: Final = (4, 1)

SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_VERSION: Final = re.compile(r"^Version:\s*(\d+(?:\.\d+)*)", re.MULTILINE)
_VERSION_TIMEOUT_S: Final = 20.0


class CriuMissing(CkptctlError):
    """There is no criu that runs."""

    code = "E_CRIU_MISSING"
    exit_status = ExitStatus.INCOMPATIBLE


class CriuTooOld(CkptctlError):
    """The criu found is older than what ckptctl can rely on."""

    code = "E_CRIU_TOO_OLD"
    exit_status = ExitStatus.INCOMPATIBLE


@dataclass(frozen=True, slots=True)
class Criu:
    """A criu program that was found and runs; `source` says in words where it was found."""

    path: Path
    version: tuple[int, ...]
    source: str

    @property
    def version_text(self) -> str:
        """The version as people write it: 4.2.1."""
        return ".".join(map(str, self.version))


def find(
    environ: Mapping[str, str],
    *,
    private: Path = PRIVATE_PROGRAM,
    system_folders: tuple[str, ...] = SYSTEM_FOLDERS,
    timeout_s: float = _VERSION_TIMEOUT_S,
) -> Criu:
    """The criu to use, as `locate` finds it. Raises CriuMissing, and CriuTooOld for one that ckptctl cannot rely on."""
    found = locate(environ, private=private, system_folders=system_folders, timeout_s=timeout_s)
    if found.version < OLDEST:
        raise CriuTooOld(
            f"{found.path} ({found.source}) is criu {found.version_text}; ckptctl needs {'.'.join(map(str, OLDEST))}.",
            hint=f"Run `ckptctl check --fix`, or name a newer criu in ${VARIABLE}.",
        )
    return found


def locate(
    environ: Mapping[str, str],
    *,
    private: Path = PRIVATE_PROGRAM,
    system_folders: tuple[str, ...] = SYSTEM_FOLDERS,
    timeout_s: float = _VERSION_TIMEOUT_S,
) -> Criu:
    """The criu of any age: $CKPTCTL_CRIU, else the private one of scripts/install-criu, else that of PATH.

    The first that exists is taken: one that was named and does not run is an error, not a reason to look further.
    Costs one `criu --version`, which may take `timeout_s`. Raises CriuMissing.
    """
    path, source = next(_candidates(environ, private, system_folders), (None, ""))
    if path is None:
        raise CriuMissing(
            f"There is no criu: neither ${VARIABLE} nor {private} nor a criu on PATH.",
            hint="Run `ckptctl check --fix`, which installs one.",
        )
    return Criu(path, _version(path, source, timeout_s), source)


def knows(criu: Criu, option: str) -> bool:
    """Whether this criu has an option (`--stream`); asks it, some milliseconds."""
    try:
        manual = command.run([criu.path, "--help"], timeout_s=_VERSION_TIMEOUT_S).stdout
    except CkptctlError:
        return False
    return re.search(rf"^\s+{re.escape(option)}\b", manual, re.MULTILINE) is not None


def with_own_capabilities(machine: Machine, environ: Mapping[str, str]) -> Machine:
    """The machine as criu will meet it: with the capabilities that the program's file has of its own (setcap(8)).

    Root has all of its own. A script, as the one of scripts/install-criu, has none: the kernel gives it none.
    """
    if machine.user_id == 0:
        return machine
    path, _ = next(_candidates(environ, PRIVATE_PROGRAM, SYSTEM_FOLDERS), (None, ""))
    own = frozenset() if path is None else file_capabilities(path)
    return replace(machine, capabilities=machine.capabilities | own)


def _candidates(
    environ: Mapping[str, str], private: Path, system_folders: tuple[str, ...]
) -> Iterator[tuple[Path, str]]:
    named = environ.get(VARIABLE)
    if named:
        yield Path(named), f"${VARIABLE}"
        return
    if private.exists():
        yield private, "scripts/install-criu"
    folders = [folder for folder in environ.get("PATH", "").split(":") if folder]
    for folder in dict.fromkeys([*folders, *system_folders]):
        path = Path(folder, "criu")
        if path.is_file() and os.access(path, os.X_OK):
            yield path, "PATH"


def _version(path: Path, source: str, timeout_s: float) -> tuple[int, ...]:
    try:
        said = command.run([path, "--version"], timeout_s=timeout_s).stdout
    except (CkptctlError, OSError) as error:
        raise CriuMissing(
            f"{path} (from {source}) does not run: {error}",
            hint=f"Run `ckptctl check --fix`, or name a criu that runs in ${VARIABLE}.",
        ) from error
    match = _VERSION.search(said)
    if match is None:
        raise CriuMissing(
            f"{path} (from {source}) is no criu: `--version` says {said.strip()[:80]!r}.",
            hint=f"Name a criu in ${VARIABLE}, or run `ckptctl check --fix`.",
        )
    return tuple(int(part) for part in match.group(1).split("."))
