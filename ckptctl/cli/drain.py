"""ckptctl drain, undrain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, QuietOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import ExitStatus
from ckptctl.output import text
from ckptctl.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptctl.supervise.bring_back import BroughtBack
    from ckptctl.supervise.drain import Drained

STATUSES: Final = (
    "Exit status: 0 done; 2 usage; 3 a run could not be saved, or not be brought back; 10 store; 130, 143 interrupted."
)

DryRunOpt = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be done, and do nothing.")]


def drain(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for those whose runs are refused meanwhile.")
    ] = "",
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="DURATION", help="How long to wait until all runs are saved.")
    ] = "30m",
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Save and end every run of this machine, and refuse new ones.

    For maintenance; `ckptctl undrain` is the way back. Every run is what `run` and `watch` of this user look after
    here. What cannot be saved runs on, and is named.
    """
    from ckptctl.supervise.drain import drain as take_off
    from ckptctl.supervise.drain import plan_drain

    manner, limit_s = Manner(json, quiet), parse_duration(time_limit)
    with session(manner) as app:
        done = plan_drain(app.services) if dry_run else take_off(reason, limit_s, app.settings.way, app.services)
    last = "No run is started on this machine until `ckptctl undrain`."
    words = [*_lines(done, "There is no run on this machine."), *([] if dry_run else [last])]
    return _said(manner, "drain", {"dry_run": dry_run, "runs": done}, words, all(one.as_wanted for one in done))


def undrain(
    time_limit: Annotated[
        str, typer.Option("--time-limit", metavar="DURATION", help="How long to wait until all of them run.")
    ] = "10m",
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Bring back what a drain has stopped, and allow new runs.

    Each goes on as it was started: by systemd, or in the background with its folder and environment.
    """
    from ckptctl.supervise.bring_back import bring_back, plan_bring_back

    manner, limit_s = Manner(json, quiet), parse_duration(time_limit)
    with session(manner) as app:
        done = plan_bring_back(app.services) if dry_run else bring_back(limit_s, app.services)
    words = _lines(done, "There is no run to bring back.")
    return _said(manner, "undrain", {"dry_run": dry_run, "runs": done}, words, all(one.as_wanted for one in done))


def _said(manner: Manner, command: str, result: object, words: list[str], as_wanted: bool) -> int:
    return emit(manner, command, result, text.sentences(words), ExitStatus.DONE if as_wanted else ExitStatus.PARTIAL)


def _lines(done: Sequence[Drained | BroughtBack], none: str) -> list[str]:
    return [f"run {one.run}: {one.text}" for one in done] or [none]
