"""ckptctl systemd."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions
from ckptctl.cli.groups import grouped
from ckptctl.cli.images import KeptImageOptions
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import JsonOpt
from ckptctl.cli.session import Manner, emit
from ckptctl.cli.unattended import JobOptions, PlaceOptions, Typed
from ckptctl.errors import UsageError

if TYPE_CHECKING:
    from ckptctl.host.service import Manager

STATUSES: Final = (
    "Exit status: 0 done; 1 systemctl failed; 2 usage; 4 there are no units of this run; 10 a file cannot be written, "
    "or is not ours."
)
_SYSTEM: Final = Path("/etc/systemd/system")


class Action(StrEnum):
    """What is done with the units of a run."""

    INSTALL = "install"
    UNINSTALL = "uninstall"


@grouped
def systemd(
    action: Annotated[Action, typer.Argument(help="Write the units of a run, or stop and remove them.")],
    schedule: ScheduleOptions,
    keep: KeepOptions,
    preemption: PreemptionOptions,
    around: AroundOptions,
    images: KeptImageOptions,
    job: JobOptions,
    place: PlaceOptions,
    run: Annotated[str, typer.Option("--run", metavar="NAME", help="The run.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="The job and its arguments.")
    ] = None,
    user: Annotated[
        bool | None,
        typer.Option(
            "--user/--system", help="For your own systemd, or the machine's.", show_default="the machine's for root"
        ),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Start it at once, and from now on at each boot.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write the files there, and leave systemd alone.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show what would be written, and write nothing.")
    ] = False,
    json: JsonOpt = False,
) -> int:
    """Let systemd keep a run alive, from boot to boot.

    Writes a service that brings it back after preemption and when it died: it starts `ckptctl run` with these options
    and this command in this folder. With options that say which snapshots are kept, timers do the same to old
    snapshots each day, and verify every byte each week.
    """
    from ckptctl.host.service import running_manager

    of_user = os.geteuid() != 0 if user is None else user
    folder = to.absolute() if to else _folder(of_user=of_user)
    manager = None if to or dry_run else running_manager(of_user=of_user)
    manner = Manner(json=json)
    if action is Action.UNINSTALL:
        if command:
            raise UsageError("To uninstall a run its name is enough.", hint=f"ckptctl systemd uninstall --run {run}")
        return _uninstall(run, folder, manager, manner, dry_run=dry_run)
    if of_user and place.as_user:
        raise UsageError("--as is for --system: your own systemd starts your own runs.", hint="Leave out one of both.")
    typed = Typed(run, tuple(command or ()), schedule, keep, preemption, around, images, job, place)
    return _install(typed, folder, manager, manner, _Wish(of_user, now, dry_run))


@dataclass(frozen=True, slots=True)
class _Wish:
    of_user: bool
    now: bool
    dry_run: bool


def _install(typed: Typed, folder: Path, manager: Manager | None, manner: Manner, wish: _Wish) -> int:
    from ckptctl.supervise.unit_files import UnitNames, render
    from ckptctl.supervise.unit_install import install, plan, to_enable

    if wish.now and manager is None:
        raise UsageError("--now: there is no systemd to tell.", hint="Leave it out, or run this where systemd runs.")
    units = render(typed.unattended(), of_user=wish.of_user)
    done = plan(folder, UnitNames(typed.run), units)
    if wish.dry_run:
        lines = [f"# {one.path}: {one.change}\n{one.text}" for one in done]
        return emit(manner, "systemd", {"units": done, "next": []}, "\n".join(lines))
    done = install(done, manager, now=wish.now)
    names = to_enable(tuple(one for one in done if one.path.name in units))
    steps = [] if wish.now else _next(names, manager, of_user=wish.of_user)
    lines = [f"{one.change}: {one.path}" for one in done]
    lines += ["Next:", *(f"  {step}" for step in steps)] if steps else []
    return emit(manner, "systemd", {"units": done, "next": steps}, "\n".join(lines))


def _next(names: tuple[str, ...], manager: Manager | None, *, of_user: bool) -> list[str]:
    from ckptctl.host.service import Manager

    systemctl = shlex.join(Manager(of_user).words)
    steps = [] if manager else [f"{systemctl} daemon-reload"]
    steps.append(f"{systemctl} enable --now {shlex.join(names)}")
    # Without it the user's systemd, and all that it started, ends with the last session.
    return [*steps, "loginctl enable-linger"] if of_user else steps


def _uninstall(run: str, folder: Path, manager: Manager | None, manner: Manner, *, dry_run: bool) -> int:
    from ckptctl.store.names import check_run_name
    from ckptctl.supervise.unit_files import UnitNames
    from ckptctl.supervise.unit_install import NoUnits, plan, uninstall

    done = plan(folder, UnitNames(check_run_name(run)), {})
    if not done:
        raise NoUnits(f"There are no units of the run {run} in {folder}.", hint="Say --user or --system, or --to DIR.")
    if not dry_run:
        done = uninstall(done, manager)
    return emit(manner, "systemd", {"units": done, "next": []}, "\n".join(f"{one.change}: {one.path}" for one in done))


def _folder(*, of_user: bool) -> Path:
    if not of_user:
        return _SYSTEM
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user"
