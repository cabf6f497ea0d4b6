"""The units of systemd for a run: a service that keeps it alive, and timers that look after its snapshots.

What may stand where, and how it is quoted: systemd.syntax(7), systemd.unit(5), systemd.service(5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ckptctl.errors import ExitStatus
from ckptctl.supervise.unattended import CannotBeWritten, Unattended

# The first line of each file: only such files are replaced or removed.
MARK: Final = "# Written by `ckptctl systemd install`"
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@")
_NAMES: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-")
# A last snapshot may take longer than those before it, and the job has to end.
_STOP_MARGIN_S: Final = 300
_LONGEST_NAME: Final = 255
# What no further start would change.
_NEVER_AGAIN: Final = (
    ExitStatus.USAGE,
    ExitStatus.DO_NOT_REQUEUE,
    ExitStatus.NOT_EXECUTABLE,
    ExitStatus.NOT_FOUND,
)
_SERVICE: Final = """\
{mark} for the run {run_text}.
# Changes of your own belong into a drop-in: systemctl{user_flag} edit {service}

[Unit]
Description={description}
{after}RequiresMountsFor={mounts}
# While the machine is drained, the run is not started, and has not failed either.
ConditionPathExists=!{drained}
# Whatever is wrong: after ten starts within an hour somebody has to look.
StartLimitIntervalSec=1h
StartLimitBurst=10

[Service]
Type=exec
{owner}WorkingDirectory={cwd}
UMask={umask:04o}
{environment}ExecStart={command}

# Stopping. SIGTERM makes ckptctl save the job and end it, so it goes to ckptctl alone: with any other KillMode the job
# would be killed beside it while it is saved, or as soon as ckptctl dies. What kills ckptctl does not kill the job; the
# next start takes it over.
KillMode=process
KillSignal=SIGTERM
TimeoutStopSec={stop_s}

# Starting again. {again:d}: stopped, to be started again. {never}: it would not help.
Restart=on-failure
RestartSec=30
SuccessExitStatus={again:d}
RestartForceExitStatus={again:d}
RestartPreventExitStatus={never}

# A job that is killed for memory is resumed by ckptctl; the service need not be stopped for it.
OOMPolicy=continue
TasksMax=infinity
# Nothing is locked away here (NoNewPrivileges=, PrivateTmp=, Protect...=, Restrict...=): CRIU needs the rights, and a
# job has to find its files where they were.

[Install]
WantedBy={target}
"""
_CARE_SERVICE: Final = """\
{mark} for the run {run_text}.

[Unit]
Description={description}
RequiresMountsFor={mounts}
# Not before there is a snapshot.
ConditionPathExists={latest}

[Service]
Type=oneshot
{owner}{environment}ExecStart={command}
Nice=19
IOSchedulingClass=idle
"""
_TIMER: Final = """\
{mark} for the run {run_text}.

[Unit]
Description={description}

[Timer]
OnCalendar={calendar}
RandomizedDelaySec={spread}
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True, slots=True)
class UnitNames:
    """What the units of a run are called, which need not all be there."""

    run: str

    @property
    def service(self) -> str:
        """The service that is the run."""
        return self._unit("run", "service")

    @property
    def timers(self) -> tuple[str, ...]:
        """The timers for its snapshots."""
        return tuple(self._unit(what, "timer") for what in ("forget", "verify"))

    @property
    def all(self) -> tuple[str, ...]:
        """Every unit."""
        care = tuple(self._unit(what, "service") for what in ("forget", "verify"))
        return (self.service, *care, *self.timers)

    def _unit(self, what: str, kind: str) -> str:
        name = f"ckptctl-{what}-{escaped_name(self.run)}.{kind}"
        if len(name) > _LONGEST_NAME:
            raise CannotBeWritten(
                f"The run {self.run} has a name that is too long for a unit of systemd.", hint="Choose a shorter one."
            )
        return name


def render(wanted: Unattended, *, of_user: bool) -> Mapping[str, str]:
    """The text of each unit by its name; `of_user`: for the user's own manager. Raises CannotBeWritten."""
    names = UnitNames(wanted.run)
    units = {names.service: _service(wanted, names, of_user=of_user)}
    if not wanted.keep:
        return units
    care = (
        ("forget", wanted.forget_words, "Let go the old snapshots of", "daily", "1h"),
        ("verify", wanted.verify_words, "Read every byte of the snapshots of", "weekly", "6h"),
    )
    for (what, words, does, calendar, spread), timer in zip(care, names.timers, strict=True):
        description = specified(f"{does} the run {wanted.run}", what)
        common = {"mark": MARK, "run_text": specified(wanted.run, "name"), "description": description}
        service = timer.removesuffix("timer") + "service"
        units[service] = _CARE_SERVICE.format(
            **common,
            mounts=_mounts([str(wanted.store)]),
            owner=_owner(wanted, of_user=of_user),
            environment=_environment(wanted),
            command=command_line(words),
            latest=specified(str(wanted.latest), "path"),
        )
        units[timer] = _TIMER.format(**common, calendar=calendar, spread=spread)
    return units


def escaped_name(text: str) -> str:
    """A text as the last part of a unit's name, as `systemd-escape` writes it, but with its dashes."""
    return "".join(
        chr(byte) if chr(byte) in _NAMES else f"\\x{byte:02x}" for byte in text.encode(errors="surrogateescape")
    )


def command_line(words: tuple[str, ...]) -> str:
    """A command for ExecStart=, in which nothing is expanded. Raises CannotBeWritten."""
    program, *arguments = words
    # The program itself is not searched for variables.
    return " ".join([quoted(program), *(quoted(word, dollars=True) for word in arguments)])


def quoted(text: str, *, dollars: bool = False) -> str:
    """One word, quoted where that is needed; control characters are escaped. Raises CannotBeWritten."""
    plain = specified(text, "argument", breaks=True)
    if dollars:
        plain = plain.replace("$", "$$")
    if plain and set(plain) <= _PLAIN:
        return plain
    return '"' + "".join(_in_quotes(character) for character in plain) + '"'


def specified(text: str, what: str, *, breaks: bool = False) -> str:
    """A value that is taken as it stands, but for specifiers: each `%` is doubled. Raises CannotBeWritten."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _unwritable(text, what, "it is no UTF-8") from None
    if not breaks and (not text.isprintable() or text != text.strip()):
        raise _unwritable(text, what, "it has line breaks, control characters or blanks at an end")
    return text.replace("%", "%%")


def _service(wanted: Unattended, names: UnitNames, *, of_user: bool) -> str:
    after = "" if of_user else "After=network-online.target remote-fs.target nvidia-persistenced.service\n"
    wants = "" if of_user else "Wants=network-online.target\n"
    title = " ".join(wanted.command)
    shown = title if len(title) <= 80 and title.isprintable() else wanted.command[0]
    return _SERVICE.format(
        mark=MARK,
        run_text=specified(wanted.run, "name"),
        service=names.service,
        user_flag=" --user" if of_user else "",
        description=specified(f"ckptctl run {wanted.run}: {shown}".strip(), "command"),
        after=after + wants,
        mounts=_mounts([str(wanted.store), str(wanted.cwd)]),
        drained=specified(str(wanted.drained), "path"),
        owner=_owner(wanted, of_user=of_user),
        cwd=specified(str(wanted.cwd), "working folder"),
        umask=wanted.umask,
        environment=_environment(wanted),
        command=command_line(wanted.run_words),
        stop_s=math.ceil(wanted.grace_s) + _STOP_MARGIN_S,
        again=ExitStatus.TRY_AGAIN,
        never=" ".join(str(int(status)) for status in _NEVER_AGAIN),
        target="default.target" if of_user else "multi-user.target",
    )


def _owner(wanted: Unattended, *, of_user: bool) -> str:
    return "" if of_user or wanted.user is None else f"User={specified(wanted.user, 'user')}\n"


def _environment(wanted: Unattended) -> str:
    lines = [f"Environment={quoted(f'{name}={value}')}\n" for name, value in wanted.environment]
    lines += [f"EnvironmentFile={specified(str(path), 'path')}\n" for path in wanted.environment_files]
    return "".join(lines)


def _mounts(paths: Iterable[str]) -> str:
    return " ".join(quoted(path) for path in dict.fromkeys(paths))


def _in_quotes(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    return f"\\x{ord(character):02x}" if ord(character) < 0x20 or ord(character) == 0x7F else character


def _unwritable(text: str, what: str, why: str) -> CannotBeWritten:
    return CannotBeWritten(
        f"The {what} {text!a} cannot stand in a unit of systemd: {why}.",
        hint="Put it into a script of yours, and let that be the command.",
    )
