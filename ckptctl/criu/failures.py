"""Why criu failed, read from its log: the known cause with its remedy, else criu's last words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.command import describe_status
from ckptctl.criu.causes import CAUSES, HARMLESS, Action, Cause
from ckptctl.errors import CkptctlError, ExitStatus

__all__ = [
    "UNKNOWN",
    "Action",
    "CriuDiskFull",
    "CriuDumpFailed",
    "CriuRestoreFailed",
    "Failure",
    "dump_failed",
    "explain",
]

UNKNOWN: Final = "criu.unknown"
KILLED: Final = "criu.killed"
_DISK_FULL: Final = "criu.disk-full"
_LAST_LINES: Final = 6
# What criu writes to its log of a small job.
_LOG_BYTES: Final = 64 << 10
# `(00.012345)   4711: Error (criu/tty.c:123): tty: text`, `pie: 4711: Error (...): text`: stamp and pid may be missing.
_MARKED: Final = re.compile(r"^(?:\(\d+\.\d+\)\s*)?(?:pie: )?(?:\d+: )?(?P<mark>Error|Warn)\s+\([^)]*\): (?P<text>.*)$")
_STAMPED: Final = re.compile(r"^(?:\(\d+\.\d+\)|pie: )")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why criu failed: `code` is stable (criu.ghost-too-large), `log_lines` are the last errors of the log."""

    code: str
    summary: str
    remedy: str
    log_lines: tuple[str, ...]


class _CriuFailed(CkptctlError):
    what = "criu failed"

    def __init__(self, failure: Failure, status: int, log: Path) -> None:
        details = {
            "cause": failure.code,
            "criu_status": describe_status(status),
            "criu_log": str(log),
            "log_lines": list(failure.log_lines),
        }
        super().__init__(f"{self.what}: {failure.summary}", hint=failure.remedy, details=details)
        self.failure = failure


class CriuDumpFailed(_CriuFailed):
    """criu could not dump the tree, which runs on."""

    code = "E_CRIU_DUMP"
    exit_status = ExitStatus.DUMP_FAILED
    what = "criu could not dump the job"


class CriuDiskFull(CriuDumpFailed):
    """criu could not dump the tree, which runs on: the disk that it writes to is full."""

    code = "E_CRIU_DISK_FULL"
    exit_status = ExitStatus.NO_SPACE


class CriuRestoreFailed(_CriuFailed):
    """criu could not restore the tree; nothing of it is left running."""

    code = "E_CRIU_RESTORE"
    exit_status = ExitStatus.RESTORE_FAILED
    what = "criu could not restore the job"


def dump_failed(log_text: str, status: int, log: Path) -> CriuDumpFailed:
    """The error for a `criu dump` that ended with `status` and left this log."""
    failure = explain(log_text, action=Action.DUMP, status=status)
    if failure.code == UNKNOWN and _has_no_room(log.parent):
        # Its reason had no room in the log either.
        full = next(cause for cause in CAUSES if cause.code == _DISK_FULL)
        failure = Failure(full.code, full.summary, full.remedy, failure.log_lines)
    return (CriuDiskFull if failure.code == _DISK_FULL else CriuDumpFailed)(failure, status, log)


def explain(log_text: str, *, action: Action, status: int = 1) -> Failure:
    """The cause of a failed run of criu, from its log and the way in which it ended.

    The first line that a known cause explains decides, errors before warnings: what follows are consequences. Lines
    that criu marks as errors in runs that succeed are left out.
    """
    errors, warnings = _read_lines(log_text)
    if status < 0:
        return _killed(status, errors)
    for texts in (errors, warnings):
        for index in range(len(texts)):
            found = _match(texts[index : index + 2], action)
            if found is not None:
                return _failure(*found, action, errors)
    return _unknown(errors)


def _has_no_room(folder: Path) -> bool:
    try:
        return files.free_bytes(folder) < _LOG_BYTES
    except OSError:
        return False


def _read_lines(log_text: str) -> tuple[list[str], list[str]]:
    """The errors, with them what has no stamp at all (criu's or a dynamic loader's stderr), and the warnings."""
    errors: list[str] = []
    warnings: list[str] = []
    for line in log_text.splitlines():
        marked = _MARKED.match(line)
        if marked is not None:
            (errors if marked["mark"] == "Error" else warnings).append(marked["text"].strip())
        elif line.strip() and not _STAMPED.match(line):
            errors.append(line.strip())
    return [text for text in errors if not any(re.search(pattern, text) for pattern in HARMLESS)], warnings


def _match(lines: Sequence[str], action: Action) -> tuple[Cause, re.Match[str]] | None:
    window = "\n".join(lines)
    for cause in CAUSES:
        for pattern in cause.patterns if action in cause.actions else ():
            match = re.search(pattern, window)
            if match is not None and match.start() < len(lines[0]):
                return cause, match
    return None


def _failure(cause: Cause, match: re.Match[str], action: Action, errors: Sequence[str]) -> Failure:
    names = defaultdict(str, {name: value or "" for name, value in match.groupdict().items()})
    if action is Action.RESTORE and names["path"]:
        # While it restores, criu writes paths from the root folder on.
        names["path"] = "/" + names["path"].lstrip("/")
    summary = cause.summary.format_map(names).strip()
    return Failure(cause.code, summary, cause.remedy.format_map(names), tuple(errors[-_LAST_LINES:]))


def _killed(status: int, errors: Sequence[str]) -> Failure:
    return Failure(
        KILLED,
        f"it was ended by {describe_status(status)}.",
        "If nobody did that by hand, the machine may have run out of memory (see `dmesg`). Try again.",
        tuple(errors[-_LAST_LINES:]),
    )


def _unknown(errors: Sequence[str]) -> Failure:
    said = f"it said: {errors[0]}" if errors else "it gave no reason."
    remedy = "Read criu's log for what came before; an option of criu can be tried with `--criu-option`."
    return Failure(UNKNOWN, said, remedy, tuple(errors[-_LAST_LINES:]))
