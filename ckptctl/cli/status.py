"""ckptctl status."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, StoreOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import ExitStatus, UsageError
from ckptctl.interrupt import Interrupted

if TYPE_CHECKING:
    from ckptctl.app import App

STATUSES: Final = "Exit status: 0 done; 2 usage; 4 no such run; 10 store; 130 ended by Ctrl-C."
_TICK_S: Final = 0.1


def status(
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="This run alone.")] = None,
    live: Annotated[
        bool, typer.Option("--live", "-l", help="Show it again and again, until Ctrl-C (on a terminal).")
    ] = False,
    interval: Annotated[str, typer.Option("--interval", metavar="DURATION", help="With --live: how often.")] = "2s",
    store: StoreOpt = None,
    json: JsonOpt = False,
) -> int:
    """Show how the runs fare.

    Step and metrics, memory, the newest snapshot, when the next is due, alerts, the disk.
    """
    from ckptctl.units import parse_duration

    if live and (json or not sys.stdout.isatty()):
        raise UsageError("--live needs a terminal.", hint="Leave it out, or use watch(1): watch ckptctl status")
    manner = Manner(json, quiet=True)
    with session(manner, store=store, repair=False) as app:
        if not live:
            return _once(app, run, manner)
        try:
            return _again_and_again(app, run, max(parse_duration(interval), 0.2))
        except Interrupted:  # the way out of it, and no failure
            return ExitStatus.INTERRUPTED


def _once(app: App, run: str | None, manner: Manner) -> int:
    from ckptctl.output.status import status_text
    from ckptctl.store.selectors import NothingMatched
    from ckptctl.supervise.overview import overview

    found = overview(app.existing_store(), run, app.services.owner)
    if run is not None and not found.runs[0].snapshots and found.runs[0].updated is None:
        raise NothingMatched(f"There is no run {run}.", hint="See `ckptctl list` for those that there are.")
    return emit(manner, "status", found, status_text(found, datetime.now(UTC)))


def _again_and_again(app: App, run: str | None, interval_s: float) -> int:
    from ckptctl.output.status import redraw, status_text
    from ckptctl.supervise.overview import overview

    while True:
        found = overview(app.existing_store(), run, app.services.owner)
        if not redraw(status_text(found, datetime.now(UTC))):
            return ExitStatus.DONE
        until_s = time.monotonic() + interval_s
        while time.monotonic() < until_s:
            app.interrupt.check()
            time.sleep(_TICK_S)
