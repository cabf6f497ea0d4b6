"""ckptctl cron."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions
from ckptctl.cli.groups import grouped
from ckptctl.cli.images import KeptImageOptions
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import JsonOpt
from ckptctl.cli.session import Manner, emit
from ckptctl.cli.unattended import JobOptions, PlaceOptions, Typed

STATUSES: Final = "Exit status: 0 done; 2 usage, or something that cron cannot express."


@grouped
def cron(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The job and its arguments.")],
    schedule: ScheduleOptions,
    keep: KeepOptions,
    preemption: PreemptionOptions,
    around: AroundOptions,
    images: KeptImageOptions,
    job: JobOptions,
    place: PlaceOptions,
    run: Annotated[str, typer.Option("--run", metavar="NAME", help="The run.")],
    json: JsonOpt = False,
) -> int:
    """Print a crontab that keeps a run alive.

    For machines without systemd. With --as it is a file for /etc/cron.d, else one for `crontab`. With options that say
    which snapshots are kept, it does the same to old snapshots each night, and verifies every byte each week.
    """
    from ckptctl.supervise.crontab import render

    typed = Typed(run, tuple(command), schedule, keep, preemption, around, images, job, place)
    text = render(typed.unattended(), with_user=place.as_user is not None)
    return emit(Manner(json=json), "cron", {"crontab": text}, text.rstrip("\n"))
