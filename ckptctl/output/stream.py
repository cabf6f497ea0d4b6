"""Writing to standard output and standard error, whose readers may go away, or be a terminal."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from contextlib import suppress
from typing import Final, TextIO

_LEAST_COLUMNS: Final = 40
# Everything that a terminal would act on but the ends of lines and colours, and marks that turn the direction of
# writing.
_HARMFUL: Final = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def write(stream: TextIO, text: str) -> OSError | None:
    """Write `text` at once; the error if that failed. Nothing is raised: what a command does, it does unheard too.

    What the encoding of the stream lacks, such as bytes of file names that are no UTF-8, is written as `\\udcff`.
    """
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: TextIO) -> None:
    """Let everything written to the stream vanish, what it still holds included: Python flushes it when it ends."""
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def harmless(text: str) -> str:
    """The text without control characters that a job or a file name could have brought in; lines and colours stay."""
    return _HARMFUL.sub(lambda match: _escaped(match.group()), text)


def columns(stream: TextIO) -> int | None:
    """How many columns there are for text; None where this is no terminal, and lines stay as they are."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, width: int | None, indent: str = "  ") -> str:
    """The text with lines broken between words, or as it is without a width; what goes on is indented further.

    Paths, ids and commands stay whole, to be copied; the terminal breaks them where it must.
    """
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width, indent))


def _parts(line: str, width: int, indent: str) -> list[str]:
    if len(line) <= width:
        return [line]
    words = line.lstrip(" ")
    before = line[: len(line) - len(words)]
    return textwrap.wrap(
        words,
        max(width, _LEAST_COLUMNS),
        initial_indent=before,
        subsequent_indent=before + indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def on_one_line(text: str) -> str:
    """The text with everything escaped that cannot be printed, line ends too."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
