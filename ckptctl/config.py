"""The settings of ckptctl and where each value came from.

Flag > environment > ./ckptctl.toml > user file > system file > default.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from ckptctl.errors import CkptctlError, ExitStatus, UsageError
from ckptctl.images.levels import Compression
from ckptctl.snapshot.ways import Aim, Layout, Way
from ckptctl.units import parse_duration

SYSTEM_FILE: Final = Path("/etc/ckptctl/config.toml")
PROJECT_FILE: Final = Path("ckptctl.toml")
SYSTEM_STATE: Final = Path("/var/lib/ckptctl")


_ENVIRONMENT: Final = "environment"
_COMMAND_LINE: Final = "command line"
ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


class _Switch(StrEnum):
    ON = "on"
    OFF = "off"


class ConfigError(CkptctlError):
    """A configuration file or variable cannot be used."""

    code = "E_CONFIG"
    exit_status = ExitStatus.USAGE


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key in the files, its environment variable and what it is for."""

    key: str
    variable: str
    doc: str


SETTINGS: Final = (
    Setting("store", "CKPTCTL_STORE", "The folder that holds the snapshots."),
    Setting("state", "CKPTCTL_STATE", "The folder of this host for journals and locks of live jobs; not shared."),
    Setting("criu", "CKPTCTL_CRIU", "The criu program to use, instead of the one that ckptctl finds."),
    Setting("images", "CKPTCTL_IMAGES", "The form of the images of new snapshots: stream or directory."),
    Setting("aim", "CKPTCTL_AIM", "What a stream of images is to be good at: auto, durable or pause."),
    Setting("compress", "CKPTCTL_COMPRESS", "How much time a smaller snapshot may take: off, fast, auto or better."),
    Setting(
        "dedup", "CKPTCTL_DEDUP", "Whether a snapshot shares what an earlier one of its run has stored: on or off."
    ),
    Setting(
        "recompress",
        "CKPTCTL_RECOMPRESS",
        "How much `run` and `watch` compress kept snapshots in the background: off, fast, auto or better.",
    ),
    Setting("lock_wait", "CKPTCTL_LOCK_WAIT", "How long to wait for a job or a run that another command works on."),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting resolved; `origins` names the source of each key that is not a default."""

    store: Path
    state: Path
    criu: Path | None
    lock_wait_s: float
    way: Way
    recompress: Compression
    origins: tuple[tuple[str, str], ...]

    @property
    def from_environment(self) -> tuple[str, ...]:
        """The keys of those that environment variables have set."""
        return tuple(key for key, source in self.origins if source == _ENVIRONMENT)


def load(environment: Mapping[str, str], *, uid: int, working_folder: Path, flags: Mapping[str, str]) -> Settings:
    """Resolve the settings; `flags` holds those given on the command line by key. Raises ConfigError, UsageError."""
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for source, found in _layers(environment, uid, working_folder, flags):
        for key, value in found.items():
            values[key], origins[key] = value, source
    home = _state_home(environment, uid)
    return Settings(
        store=_absolute(values.get("store", str(home)), working_folder),
        state=_absolute(values.get("state", str(home / "state")), working_folder),
        criu=_absolute(values["criu"], working_folder) if "criu" in values else None,
        lock_wait_s=_duration(values.get("lock_wait", "0"), "lock_wait", origins),
        way=_way(values, origins),
        recompress=_choice(Compression, "recompress", values, origins),
        origins=tuple(sorted(origins.items())),
    )


def user_file(environment: Mapping[str, str]) -> Path:
    """The configuration file of the user (XDG Base Directory Specification)."""
    base = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '/root')}/.config"
    return Path(base) / "ckptctl" / "config.toml"


def _layers(
    environment: Mapping[str, str], uid: int, working_folder: Path, flags: Mapping[str, str]
) -> list[tuple[str, Mapping[str, str]]]:
    files = (SYSTEM_FILE, user_file(environment), working_folder / PROJECT_FILE)
    layers: list[tuple[str, Mapping[str, str]]] = [(str(path), _read(path, uid)) for path in files]
    named = {entry.key: environment[entry.variable] for entry in SETTINGS if environment.get(entry.variable)}
    return [*layers, (_ENVIRONMENT, named), (_COMMAND_LINE, flags)]


def _read(path: Path, uid: int) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            _refuse_foreign(path, os.fstat(file.fileno()), uid)
            table = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):
            return {}  # whose HOME this is nobody knows: `su` keeps root's
        hint = f"Make it readable: chmod u+r {path}"
        raise ConfigError(f"The settings in {path} may not be read.", hint=hint) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error}.", hint="Mend or remove it."
        ) from error
    known = {entry.key for entry in SETTINGS}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown setting {key!r}.", hint=f"Known are {', '.join(sorted(known))}.")
        # A duration may be a number of seconds; anything else is text.
        if not (isinstance(value, str) or (key == "lock_wait" and type(value) in (int, float))):
            raise ConfigError(f"{path}: the setting {key!r} must be a string.", hint=f'Write {key} = "...".')
    return {key: str(value) for key, value in table.items()}


def _refuse_foreign(path: Path, info: os.stat_result, uid: int) -> None:
    # A file that somebody else can write could point root's snapshots, full of secrets, to a place of their own.
    if info.st_uid not in (0, uid) or info.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"The configuration file {path} can be written by others.",
            hint=f"Make it yours alone (chown, chmod go-w {path}), or run ckptctl from another folder.",
        )


def _state_home(environment: Mapping[str, str], uid: int) -> Path:
    if uid == 0:
        return SYSTEM_STATE
    base = environment.get("XDG_STATE_HOME") or f"{environment.get('HOME', '')}/.local/state"
    return Path(base) / "ckptctl"


def _duration(text: str, key: str, origins: Mapping[str, str]) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise ConfigError(
            f"{origins[key]}: the setting {key!r} cannot be used. {error.message}", hint=error.hint
        ) from None


def _way(values: Mapping[str, str], origins: Mapping[str, str]) -> Way:
    way = Way(
        _choice(Layout, "images", values, origins),
        _choice(Aim, "aim", values, origins),
        _choice(Compression, "compress", values, origins),
        _choice(_Switch, "dedup", values, origins) is _Switch.ON,
    )
    idle = [key for key in ("aim", "compress", "dedup", "recompress") if origins.get(key) == _COMMAND_LINE]
    if idle and way.layout is Layout.DIRECTORY:
        raise UsageError(
            f"--{idle[0]} is for --images stream: criu writes its own files as it does.", hint="Leave out one of both."
        )
    return way


def _choice(kind: type[ChoiceT], key: str, values: Mapping[str, str], origins: Mapping[str, str]) -> ChoiceT:
    """The value of a setting that is one of a few; the first of them where it is not set."""
    known = list(kind)
    text = values.get(key, known[0].value)
    if text in known:
        return kind(text)
    hint = f"One of {', '.join(known)}."
    if origins[key] == _COMMAND_LINE:
        raise UsageError(f"--{key} {text}: not known.", hint=hint)
    raise ConfigError(f"{origins[key]}: the setting {key!r} cannot be {text!r}.", hint=hint)


def _absolute(text: str, working_folder: Path) -> Path:
    try:
        return working_folder / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"The path {text} cannot be used: {error}", hint="Write it without the `~`.") from None
