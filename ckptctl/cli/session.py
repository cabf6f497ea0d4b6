"""What every command does around its one call: settings, a reporter, recovery of what was cut off, the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ckptctl.app import App, opened
from ckptctl.errors import ExitStatus
from ckptctl.output import document, reporters, text


@dataclass(frozen=True, slots=True)
class Manner:
    """How a command speaks."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False


@contextmanager
def session(
    manner: Manner,
    *,
    store: Path | None = None,
    lock_wait: str | None = None,
    flags: Mapping[str, str] = MappingProxyType({}),
    repair: bool = True,
) -> Iterator[App]:
    """The App for one command; with `repair`, actions on live jobs that were cut off are finished or undone first.

    `flags` are settings of the command line besides the first two, by key.
    """
    chosen = reporters.choose(json=manner.json, quiet=manner.quiet, verbose=manner.verbose)
    try:
        with opened({"store": store, "lock_wait": lock_wait, **flags}, chosen) as app:
            if repair:
                app.repair()
            yield app
    finally:
        chosen.close()


def emit(manner: Manner, command: str, result: object, words: str, status: ExitStatus = ExitStatus.DONE) -> ExitStatus:
    """Say the result in the manner asked for, and return the status; a result that is lost is no success.

    `words` are shown as they are: `text.sentences` wraps what a terminal would break.
    """
    said = text.say(document.success(command, result, status) if manner.json else words)
    return status if said or status is not ExitStatus.DONE else ExitStatus.BUG
