"""Where progress comes from, as the words of a command line spell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.progress.formats import AUTOMATIC, READY, Format, from_pattern
from ckptctl.progress.iteration_file import IterationFile
from ckptctl.progress.lightning import MetricsCsv
from ckptctl.progress.log import Log
from ckptctl.progress.source import Source
from ckptctl.progress.status_file import StatusFile
from ckptctl.progress.trainer_state import TrainerState

DEFAULT: Final = "auto"
FORMS: Final = "auto, status, hf:DIR, lightning:DIR, log, log:PATTERN, log:NAME, file:PATH"
_FOLDERS_AND_FILES: Final[Mapping[str, Callable[[Path], Source]]] = {
    "hf": TrainerState,
    "lightning": MetricsCsv,
    "file": IterationFile,
}


class BadProgressSource(UsageError):
    """A word that names no source of progress."""

    code = "E_PROGRESS_SOURCE"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job leaves what is not named in words: its status file, and the files to which its output goes.

    `begins`: what stands in a log before that offset (in bytes) is of another training, and is not read.
    """

    status: Path
    logs: tuple[Path, ...] = ()
    begins: Mapping[Path, int] = field(default_factory=dict)

    def read_logs(self, form: Format) -> tuple[Source, ...]:
        """The logs as sources with lines of this form."""
        return tuple(Log(path, form, self.begins.get(path, 0)) for path in self.logs)


def parse_source(word: str, places: Places) -> tuple[Source, ...]:
    """The sources that a word such as `hf:out` means, in the order in which they are believed.

    `auto` is the status file, then every log with the usual forms. Relative paths are those of the caller.
    Raises BadProgressSource and formats.BadPattern.
    """
    kind, colon, rest = word.partition(":")
    if word == "auto":
        return (StatusFile(places.status), *places.read_logs(AUTOMATIC))
    if word == "status":
        return (StatusFile(places.status),)
    if kind == "log" and bool(colon) == bool(rest):
        form = (READY.get(rest) or from_pattern(rest)) if rest else AUTOMATIC
        return places.read_logs(form)
    if kind in _FOLDERS_AND_FILES and rest and "\0" not in rest:
        return (_FOLDERS_AND_FILES[kind](Path(rest)),)
    raise BadProgressSource(f"{word!r} is no source of progress.", hint=f"One of {FORMS}.")


def parse_sources(words: tuple[str, ...], places: Places) -> tuple[Source, ...]:
    """The sources of all words; what an earlier word knows is believed before a later one. `auto` for no word."""
    return tuple(source for word in words or (DEFAULT,) for source in parse_source(word, places))
