"""The JSON document that every command prints with --json: one, versioned, also for a failure."""

from __future__ import annotations

import dataclasses
import json
import math
import traceback
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl import __version__
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Event

SCHEMA: Final = 1
REPORT_IT: Final = "This is a bug in ckptctl. Please report it with the traceback."


def success(command: str, result: object, status: int = ExitStatus.DONE) -> str:
    """The document of a command that did its work, if only in part; `status` may be that of a job."""
    return _render({**_head(command, status), "result": result})


def failure(command: str, error: BaseException, status: int) -> str:
    """The document of a command that failed; an error that is not of ours is a bug."""
    body: dict[str, object]
    if isinstance(error, CkptctlError):
        body = {"code": error.code, "message": error.message, "hint": error.hint, "outcome": error.outcome}
        body["details"] = error.details
    else:
        body = {"code": "E_BUG", "message": f"{type(error).__name__}: {error}", "hint": REPORT_IT, "outcome": None}
        body["details"] = {"traceback": traceback.format_exception(error)}
    body["notes"] = list(getattr(error, "__notes__", ()))
    return _render({**_head(command, status), "error": body})


def event_line(event: Event) -> str:
    """One event as one line of JSON, for standard error while long work goes on."""
    return json.dumps({"event": type(event).__name__, **_as_mapping(event)}, ensure_ascii=True)


def plain(value: object) -> object:
    """The value in JSON's own types: dataclasses by field, enums by value, times as RFC 3339, paths as text."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _head(command: str, status: int) -> dict[str, object]:
    done = "done" if status == 0 else "partial" if status == ExitStatus.PARTIAL else "failed"
    return {"schema": SCHEMA, "ckptctl": __version__, "command": command, "status": done, "exit_status": int(status)}


def _as_mapping(value: object) -> dict[str, object]:
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}  # type: ignore[arg-type]


def _render(document: Mapping[str, object]) -> str:
    # Escaped to ASCII, so that names with bytes that are no UTF-8 reach a pipe unharmed.
    return json.dumps(plain(document), indent=2, ensure_ascii=True)
