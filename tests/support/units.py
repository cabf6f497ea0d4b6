"""Doing by hand what systemd and cron do with what is written for them: the same words, folder, variables, signals."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ESCAPES: Final = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_BARE: Final = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh"}


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A unit, read as systemd.syntax(7) says."""

    path: Path

    def values(self, name: str) -> list[str]:
        """All values of a setting, in order, specifiers resolved."""
        lines = self.path.read_text().splitlines()
        return [line.partition("=")[2].replace("%%", "%") for line in lines if line.startswith(f"{name}=")]

    def value(self, name: str) -> str:
        """The one value of a setting."""
        (found,) = self.values(name)
        return found

    def statuses(self, name: str) -> set[int]:
        """A setting that is a list of exit statuses."""
        return {int(word) for word in self.value(name).split()}

    def environment(self) -> dict[str, str]:
        """The variables of its processes; nothing of ours is among them."""
        given = [word for value in self.values("Environment") for word in unquoted(value)]
        for path in self.values("EnvironmentFile"):
            given += Path(path).read_text().splitlines()
        return {**_BARE, **dict(one.split("=", 1) for one in given)}

    def start(self) -> subprocess.Popen[bytes]:
        """Start its command."""
        program, *words = unquoted(self.value("ExecStart"))
        folder = self.values("WorkingDirectory")
        umask = self.values("UMask")
        return subprocess.Popen(
            [program, *(word.replace("$$", "$") for word in words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=self.environment(),
            cwd=folder[0] if folder else "/",
            umask=int(umask[0], 8) if umask else 0o022,
            start_new_session=True,
        )


def unquoted(text: str) -> list[str]:
    """The words of a setting: blanks part them, double quotes hold them together, backslashes escape."""
    words: list[str] = []
    word: str | None = None
    quoted = False
    characters = iter(text)
    for character in characters:
        if character == '"':
            quoted = not quoted
            word = word or ""
        elif character == "\\":
            kind = next(characters)
            found = chr(int(next(characters) + next(characters), 16)) if kind == "x" else _ESCAPES[kind]
            word = (word or "") + found
        elif character.isspace() and not quoted:
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + character
    assert not quoted
    return words + ([] if word is None else [word])


def run_cron_line(crontab: str, schedule: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the line of a user's crontab that begins so, to its end, as crontab(5) says."""
    lines = crontab.splitlines()
    variables = dict(line.split("=", 1) for line in lines if line[:1].isupper())
    (line,) = [line for line in lines if line.startswith(schedule)]
    environment = {"HOME": str(home), "LOGNAME": "root", **{name: text.strip('"') for name, text in variables.items()}}
    return subprocess.run(
        [environment.pop("SHELL"), "-c", line.removeprefix(schedule).strip().replace("\\%", "%")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        timeout=120,
    )


def umask_of_ours() -> int:
    """The umask of this process."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
