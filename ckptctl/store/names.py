"""Names of runs and ids of snapshots: what they may look like, and the ones that are chosen by default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Final

from ckptctl.errors import UsageError

_LONGEST_RUN_BYTES: Final = 128
_ID: Final = re.compile(r"\d{8}T\d{6}Z(-s\d{6,18})?-[0-9a-f]{4,16}", re.ASCII)
_PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*")
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
# Programs that start another one: the job's name is that of the script, not theirs.
_LAUNCHERS: Final = frozenset(
    {
        *("torchrun", "torch.distributed.run", "torch.distributed.launch"),
        *("accelerate", "accelerate.commands.launch", "composer", "colossalai", "fabric"),
        *("deepspeed", "deepspeed.launcher.runner", "deepspeed.launcher.launch"),
        *("mpirun", "mpiexec", "orterun", "horovodrun", "srun"),
        *("coverage", "debugpy", "timeout", "uv", "poetry"),
    }
)
_PYTHON_OPTIONS_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})


class BadRunName(UsageError):
    """A name that no run can have."""

    code = "E_RUN_NAME"


def check_run_name(name: str) -> str:
    """Return `name` if a run can be called so, else raise BadRunName.

    It becomes a folder's name and is typed in shells: no separators, control characters or stray blanks, no leading
    dot (hidden, and `..`) or dash (an option), at most 128 bytes.
    """
    problem = _run_name_problem(name)
    if problem:
        raise BadRunName(f"A run cannot be called {name!r}: {problem}.", hint="Choose another name with --run.")
    return name


def is_run_name(name: str) -> bool:
    """Whether a run can be called so."""
    return not _run_name_problem(name)


def check_tag(text: str) -> str:
    """Return `text` if `tag:TEXT` can name a snapshot by it, else raise UsageError."""
    if not text.strip() or not text.isprintable():
        raise UsageError(
            f"{text!a} is no tag: it needs characters that can be seen.", hint="For example before-lr-change."
        )
    return text


def is_snapshot_id(text: str) -> bool:
    """Whether `text` has the shape of a snapshot's id, which is also a safe name for a folder."""
    if _ID.fullmatch(text) is None:
        return False
    try:
        id_time(text)
    except ValueError:
        return False
    return True


def new_id(now: datetime, step: int | None, random: str) -> str:
    """An id that sorts by time: 20261120T193000Z-s012000-7f3a; `random` is 4 to 16 hexadecimal digits."""
    moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{moment}-{random}" if step is None else f"{moment}-s{step:06d}-{random}"


def id_time(snapshot_id: str) -> datetime:
    """When the snapshot with this (valid) id was begun, to the second; raises ValueError for a date that is none."""
    return datetime.strptime(snapshot_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def run_name_from(cmdline: Sequence[str]) -> str:
    """The run's name for a job with this command line: `python -u x/train.py` gives `train`; always a valid name."""
    named = _program(list(cmdline)) if cmdline else ""
    cleaned = re.sub(r"[^A-Za-z0-9._+-]+", "-", named)[:64].strip("-.")
    return cleaned or "job"


def _run_name_problem(name: str) -> str | None:
    checks = (
        (not name, "it is empty"),
        (name[:1] in {".", "-"}, "it begins with a dot or a dash"),
        ("/" in name, "it holds a slash"),
        (not name.isprintable(), "it holds characters that cannot be printed"),
        (name != name.strip(), "it begins or ends with a blank"),
        (len(name.encode("utf-8", "surrogatepass")) > _LONGEST_RUN_BYTES, f"it is over {_LONGEST_RUN_BYTES} bytes"),
    )
    return next((problem for failed, problem in checks if failed), None)


def _program(words: list[str]) -> str:
    """The name of what the words run: a script's stem, a module, or the program itself."""
    name = PurePath(words[0]).name.lstrip("-")
    rest = words[1:]
    if _PYTHON.fullmatch(name):
        script, rest = _after_python(rest)
        if script is None:
            return name
        name = script
    elif name in _SHELLS:
        script = next((word for word in rest if not word.startswith("-")), None)
        return name if script is None or "-c" in rest else _stem(script)
    if name in _LAUNCHERS:
        return _launched(rest) or name
    return _stem(name)


def _after_python(words: list[str]) -> tuple[str | None, list[str]]:
    """What python runs (a script's stem or a module), None for `-c` and an interactive one, and the words after it."""
    position = 0
    while position < len(words):
        word = words[position]
        if word == "-m" and position + 1 < len(words):
            return words[position + 1], words[position + 2 :]
        if word in {"-c", "-", "-m"}:
            return None, []
        if not word.startswith("-"):
            return _stem(word), words[position + 1 :]
        position += 2 if word in _PYTHON_OPTIONS_WITH_VALUE else 1
    return None, []


def _launched(words: list[str]) -> str | None:
    """What a launcher was told to run: `-m MODULE`, or the first Python script among the words, or python's."""
    for position, word in enumerate(words):
        if word in {"-m", "--module"} and position + 1 < len(words):
            return words[position + 1]
        if word.endswith(".py"):
            return _stem(word)
    return None


def _stem(path: str) -> str:
    script = PurePath(path)
    if script.stem == "__main__":
        return script.parent.name
    return script.stem if script.suffix in {".py", ".pyc", ".sh"} else script.name
