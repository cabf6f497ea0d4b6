"""Putting the units of a run where systemd finds them, and taking them away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.service import Manager
from ckptctl.supervise.unit_files import MARK, UnitNames

_PUBLIC: Final = 0o644
# A run saves its job before it ends; the unit itself says how long it may take.
_STOPPED_S: Final = 24 * 3600.0


class ForeignUnit(CkptctlError):
    """A unit of this name was written by somebody else."""

    code = "E_FOREIGN_UNIT"
    exit_status = ExitStatus.STORE


class NoUnits(CkptctlError):
    """There are no units of this run."""

    code = "E_NO_UNITS"
    exit_status = ExitStatus.NOTHING_MATCHED


class Change(StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    WOULD_WRITE = "would write"
    WOULD_REMOVE = "would remove"


@dataclass(frozen=True, slots=True)
class Unit:
    """The file of a unit."""

    path: Annotated[Path, "the file"]
    change: Annotated[Change, "what became of it"]
    text: Annotated[str, "what is in it"]


def plan(folder: Path, names: UnitNames, units: Mapping[str, str]) -> tuple[Unit, ...]:
    """What would become of the units of this run, those that are not wanted any more included.

    Raises ForeignUnit, FileTrouble.
    """
    there = {name: text for name in names.all if (text := _read(folder / name)) is not None}
    planned = []
    for name, text in units.items():
        change = Change.UNCHANGED if there.get(name) == text else Change.WOULD_WRITE
        planned.append(Unit(folder / name, change, text))
    planned += [Unit(folder / name, Change.WOULD_REMOVE, text) for name, text in there.items() if name not in units]
    return tuple(planned)


def install(planned: tuple[Unit, ...], manager: Manager | None, *, now: bool) -> tuple[Unit, ...]:
    """Write what `plan` has found, and tell systemd; with `now` it starts them at once and at each boot.

    Raises FileTrouble, NoSpace, CommandMissing, CommandFailed.
    """
    stale = tuple(one for one in planned if one.change is Change.WOULD_REMOVE)
    removed = uninstall(stale, manager) if stale else ()
    done = []
    for one in planned:
        if one.change is Change.WOULD_WRITE:
            _make_folder(one.path.parent)
            files.write_atomically(one.path, one.text.encode(), mode=_PUBLIC)
            done.append(Unit(one.path, Change.WRITTEN, one.text))
        elif one.change is Change.UNCHANGED:
            done.append(one)
    if manager is not None:
        manager.call("daemon-reload")
        if now:
            manager.call("enable", "--now", *to_enable(tuple(done)))
    return (*done, *removed)


def uninstall(planned: tuple[Unit, ...], manager: Manager | None) -> tuple[Unit, ...]:
    """Stop what runs, which saves the job, and remove the files. Raises FileTrouble, CommandMissing, CommandFailed."""
    if manager is not None:
        names = [one.path.name for one in planned]
        manager.call("disable", *to_enable(planned))
        # Not before it has stopped: a unit without its file has no KillMode= that spares the job.
        manager.call("stop", *names, timeout_s=_STOPPED_S)
    for one in planned:
        files.remove(one.path)
    if manager is not None:
        manager.call("daemon-reload")
    return tuple(Unit(one.path, Change.REMOVED, one.text) for one in planned)


def to_enable(units: tuple[Unit, ...]) -> tuple[str, ...]:
    """The names of those that are started by themselves."""
    return tuple(one.path.name for one in units if "\n[Install]\n" in one.text)


def _read(path: Path) -> str | None:
    """The text of a unit of ours; None where there is none. Raises ForeignUnit, FileTrouble."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be read") from error
    if not text.startswith(MARK):
        raise ForeignUnit(f"{path} was not written by ckptctl.", hint="Move it away, or give the run another name.")
    return text


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.trouble(error, f"The folder {folder} cannot be created") from error
