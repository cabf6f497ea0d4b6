"""Lines for cron that keep a run alive on a machine without systemd: crontab(5)."""

from __future__ import annotations

import shlex
from typing import Final

from ckptctl.supervise.unattended import CannotBeWritten, Unattended

# Debian's cron and cronie take no longer command; what is longer is cut off, or spoils the whole file.
_LONGEST: Final = 998
_HEAD: Final = """\
# The run {run}, written by `ckptctl cron`.
# Every five minutes it is started, unless it runs, has come to its end or was given up (ckptctl says nothing then).
"""


def render(wanted: Unattended, *, with_user: bool) -> str:
    """A crontab; `with_user`: one for /etc/cron.d, whose lines name the user. Raises CannotBeWritten."""
    user = f"{wanted.user} " if with_user else ""
    run, (minute, hour) = wanted.run_words, _when(wanted)
    words = (*run[:2], "--if-needed", "--quiet", *run[2:])
    lines = ["SHELL=/bin/sh", *_path(wanted), f"*/5 * * * * {user}{_command(wanted, words)}"]
    if wanted.keep:
        # Not before there is a snapshot.
        there = f"test ! -e {shlex.quote(str(wanted.latest))} || (".replace("%", "\\%")
        forget, verify = (_command(wanted, words) for words in (wanted.forget_words, wanted.verify_words))
        lines.append(f"{minute} {hour} * * * {user}{there}{forget} >/dev/null)")
        lines.append(f"{minute} {hour + 1} * * 0 {user}{there}{verify} >/dev/null)")
    for line in lines:
        _check(line, wanted)
    return _HEAD.format(run=wanted.run) + "\n".join(lines) + "\n"


def _command(wanted: Unattended, words: tuple[str, ...]) -> str:
    """A command for sh with the folder, the umask and the variables of its own."""
    steps = [f"cd {shlex.quote(str(wanted.cwd))}", f"umask {wanted.umask:04o}"]
    if wanted.environment_files:
        steps.append("set -a")
        steps += [f". {shlex.quote(str(path))}" for path in wanted.environment_files]
    variables = [f"{name}={value}" for name, value in wanted.environment if name != "PATH"]
    start = shlex.join(["env", *variables, *words] if variables else words)
    # cron makes line breaks of percent signs.
    return f"{' && '.join(steps)} && {start}".replace("%", "\\%")


def _path(wanted: Unattended) -> list[str]:
    """cron's own PATH has neither sbin nor what people install."""
    found = [value for name, value in wanted.environment if name == "PATH"]
    if found and '"' in found[0]:
        raise CannotBeWritten("The PATH has a quotation mark, which cron cannot have.", hint="Set another PATH.")
    return [f'PATH="{found[0]}"'] if found else []


def _when(wanted: Unattended) -> tuple[int, int]:
    """A minute and an hour of the early morning, which differ from run to run."""
    return wanted.scatter % 60, 1 + wanted.scatter // 60 % 4


def _check(line: str, wanted: Unattended) -> None:
    if not line.isprintable():
        why = "it has line breaks or control characters"
    elif len(line.encode(errors="surrogateescape")) > _LONGEST:
        why = f"it is longer than {_LONGEST} bytes"
    else:
        return
    raise CannotBeWritten(
        f"The run {wanted.run} cannot be written as a line for cron: {why}.",
        hint="Put the command into a script of yours, and let that be the command; or use `ckptctl systemd`.",
    )
