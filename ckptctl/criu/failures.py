"""Why criu failed, read from its log: the known cause with its remedy, else criu's last words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.command import describe_status
from ckptctl.criu.causes import CAUSES, HARMLESS, Action, Cause
from ckptctl.errors import CkptctlError, ExitStatus

__all__ = ["Action", "CriuDumpFailed", "CriuRestoreFailed", "Failure", "explain"]

UNKNOWN: Final = "criu.unknown"
_LAST_LINES: Final = 6
# `(00.012345)      7: Error (criu/tty.c:123): tty: text`; the pid stands there while a tree is restored.
_ERROR: Final = re.compile(r"^(?:\(\d+\.\d+\))?\s*(?:\d+: )?Error \([^)]*\):\s*(?P<text>.*)$")
_STAMP: Final = re.compile(r"^\(\d+\.\d+\)\s*")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why criu failed: `code` is stable (criu.ghost-too-large), `log_lines` are what it was read from."""

    code: str
    summary: str
    remedy: str
    log_lines: tuple[str, ...]


class CriuDumpFailed(CkptctlError):
    """criu could not dump the tree, which runs on."""

    code = "E_CRIU_DUMP"
    exit_status = ExitStatus.DUMP_FAILED

    def __init__(self, failure: Failure, status: int, log: Path) -> None:
        super().__init__(
            f"criu could not dump: {failure.summary}", hint=failure.remedy, details=_details(failure, status, log)
        )
        self.failure = failure


class CriuRestoreFailed(CkptctlError):
    """criu could not restore the tree; nothing of it is left running."""

    code = "E_CRIU_RESTORE"
    exit_status = ExitStatus.RESTORE_FAILED

    def __init__(self, failure: Failure, status: int, log: Path) -> None:
        super().__init__(
            f"criu could not restore: {failure.summary}", hint=failure.remedy, details=_details(failure, status, log)
        )
        self.failure = failure


def explain(log_text: str, *, action: Action) -> Failure:
    """The cause of a failed run of criu, from its log.

    The first line that a known cause explains decides: what follows in such a log are consequences. Lines that criu
    marks as errors in runs that succeed are left out.
    """
    errors = _error_texts(log_text)
    for text in errors:
        for cause in CAUSES:
            match = cause.pattern.search(text) if action in cause.actions else None
            if match is not None:
                return _failure(cause, match, errors)
    return _unknown(errors, log_text, action)


def _error_texts(log_text: str) -> tuple[str, ...]:
    """The texts of the lines marked as errors, and what has no stamp at all (criu's stderr, a dynamic loader's)."""
    found = []
    for line in log_text.splitlines():
        match = _ERROR.match(line)
        if match is not None:
            found.append(match["text"].strip())
        elif line.strip() and not _STAMP.match(line):
            found.append(line.strip())
    return tuple(text for text in found if not any(pattern.search(text) for pattern in HARMLESS))


def _failure(cause: Cause, match: re.Match[str], errors: tuple[str, ...]) -> Failure:
    names = {name: value or "" for name, value in match.groupdict().items()}
    return Failure(cause.code, cause.summary.format(**names), cause.remedy.format(**names), errors[-_LAST_LINES:])


def _unknown(errors: tuple[str, ...], log_text: str, action: Action) -> Failure:
    last = errors or tuple(_STAMP.sub("", line) for line in log_text.splitlines() if line.strip())
    said = f"criu said: {errors[0]}" if errors else "criu gave no reason"
    return Failure(
        UNKNOWN,
        f"{said}.",
        f"Read the log of criu; an option of criu can be tried with `ckptctl {action.value} --criu-option`.",
        last[-_LAST_LINES:],
    )


def _details(failure: Failure, status: int, log: Path) -> dict[str, object]:
    return {
        "cause": failure.code,
        "criu_status": describe_status(status),
        "criu_log": str(log),
        "log_lines": list(failure.log_lines),
    }
