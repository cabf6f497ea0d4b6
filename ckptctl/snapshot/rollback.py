"""What a restore does with files whose size is another than at the dump: a plan, made before anything is touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl.preflight.finding import Finding, Level
from ckptctl.process.outside import WRITES, Wanted, find_holders
from ckptctl.store.journal import MovedFile
from ckptctl.store.manifest import Manifest, OpenFile
from ckptctl.units import format_size

_GROUP: Final = "files"


class Mode(Enum):
    """What to do with files that grew: --files."""

    ROLL_BACK = "roll-back"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Plan:
    """`cuts` are put back to their size; CRIU is told that the files of `accepted` had the size that they have now."""

    cuts: tuple[MovedFile, ...]
    accepted: tuple[tuple[str, int], ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Grown:
    file: OpenFile
    size_then: int
    size_now: int
    writable: bool


def plan(manifest: Manifest, mode: Mode, tails: Path) -> Plan:
    """Compare every file that the job had open with what is there now.

    `tails` is the folder for what is cut off. Findings of the level ERROR forbid the restore.
    """
    cuts: list[MovedFile] = []
    accepted: list[tuple[str, int]] = []
    findings: list[Finding] = []
    # What lives in memory is put in place as a whole (see `kept`).
    elsewhere = {item.path for item in manifest.kept_files}
    for path, opened in _by_path(manifest.regular_files()).items():
        if path in elsewhere:
            continue
        then = max(file.size_bytes or 0 for file in opened)
        now = _size_now(path)
        if isinstance(now, Finding):
            findings.append(now)
        elif now != then:
            grown = _Grown(opened[0], then, now, any(_is_writable(file) for file in opened))
            verdict = _judge(grown, mode)
            findings += [verdict] if verdict else []
            if mode is Mode.ROLL_BACK and now > then and grown.writable:
                tail = tails / f"{len(cuts):03d}-{Path(path).name}"
                cuts.append(MovedFile(Path(path), now, then, tail))
            elif not all(file.append for file in opened):
                accepted.append((path, now))
    findings += _written_by_others(cuts)
    return Plan(tuple(cuts), tuple(accepted), tuple(findings))


def _by_path(opened: Iterable[OpenFile]) -> dict[str, list[OpenFile]]:
    found: dict[str, list[OpenFile]] = {}
    for file in opened:
        if file.mode is None or stat.S_ISREG(file.mode):
            found.setdefault(file.path, []).append(file)
    return found


def _size_now(path: str) -> int | Finding:
    try:
        info = os.lstat(path)
    except OSError as error:
        return Finding(
            "file-missing",
            _GROUP,
            Level.ERROR,
            f"The file {path}, which the job had open, is not there: {error.strerror}.",
            "Put it back; it must exist under that path.",
        )
    if stat.S_ISREG(info.st_mode):
        return info.st_size
    return Finding(
        "file-replaced",
        _GROUP,
        Level.ERROR,
        f"{path}, which the job had open, is no regular file any more.",
        "Put the file back that was there at the dump.",
    )


def _judge(grown: _Grown, mode: Mode) -> Finding | None:
    """None where the plan deals with it in silence: a roll-back is reported when it is done."""
    path = grown.file.path
    sizes = f"{format_size(grown.size_then)} at the dump, {format_size(grown.size_now)} now"
    if mode is Mode.KEEP:
        return _warning("file-kept", f"{path} is kept as it is ({sizes}): it may hold lines twice.")
    if grown.size_now < grown.size_then:
        return _error(
            "file-shrunk",
            f"{path} is shorter than at the dump ({sizes}): it was rewritten or rotated, and what the job had "
            "written is not there any more.",
            "Put back the file of the dump, or accept what is there with --files keep.",
        )
    if not grown.writable:
        return _warning("file-grown", f"{path}, which the job only reads, has grown ({sizes}); it is left as it is.")
    if mode is Mode.REFUSE:
        return _error(
            "file-grown",
            f"{path} has grown since the dump ({sizes}).",
            "Let it be put back, with the rest kept aside: --files roll-back; or leave it: --files keep.",
        )
    return None


def _written_by_others(cuts: Iterable[MovedFile]) -> list[Finding]:
    """Nobody may be writing to a file that is cut: their next line would follow a gap, or land in the job's log."""
    found = []
    for item in cuts:
        for holder in find_holders([Wanted(str(item.path), WRITES)], (), ()):
            found.append(
                _error(
                    "file-in-use",
                    f"{item.path} has grown since the dump, and process {holder.pid} ({holder.comm}) is writing to it.",
                    f"End that process; or stop it (kill -STOP {holder.pid}) and leave the file alone: --files keep.",
                )
            )
    return found


def _is_writable(file: OpenFile) -> bool:
    return file.flags & os.O_ACCMODE != os.O_RDONLY


def _error(check: str, summary: str, remedy: str) -> Finding:
    return Finding(check, _GROUP, Level.ERROR, summary, remedy)


def _warning(check: str, summary: str) -> Finding:
    return Finding(check, _GROUP, Level.WARNING, summary)
