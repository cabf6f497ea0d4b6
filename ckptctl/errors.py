"""The errors that ckptctl raises on purpose: each has a stable code, an exit status and a hint.

Subclasses live beside the code that raises them. One boundary, `ckptctl.cli.main.main`, catches them;
anything else that reaches it is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """What the exit status of every command means; documented in docs/reference/exit-statuses.md."""

    DONE = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    NOTHING_MATCHED = 4
    PREFLIGHT_REFUSED = 5
    NO_PROCESS = 6
    DUMP_FAILED = 7
    PROCESS_LOST = 8
    RESTORE_FAILED = 9
    STORE = 10
    LOCKED = 11
    CREDENTIALS = 12
    INTEGRITY = 13
    NO_SPACE = 14
    INCOMPATIBLE = 15
    TIMEOUT = 16
    TRY_AGAIN = 75
    DO_NOT_REQUEUE = 93
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130
    TERMINATED = 143


class CkptctlError(Exception):
    """Something that ckptctl foresaw went wrong.

    `message` says what failed and on what, `hint` what to do next, `details` are facts for `--json` and for
    the log (JSON scalars or lists of strings only).
    `outcome` says in a sentence what became of the job, where a process was touched.
    """

    code: ClassVar[str] = "E_INTERNAL"
    exit_status: ClassVar[ExitStatus] = ExitStatus.BUG

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
        outcome: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})
        self.outcome = outcome


class UsageError(CkptctlError):
    """The command line asks for something that cannot be."""

    code = "E_USAGE"
    exit_status = ExitStatus.USAGE
