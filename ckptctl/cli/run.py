"""ckptctl run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from ckptctl.cli.again import own_call
from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions, Words, say_end
from ckptctl.cli.groups import grouped
from ckptctl.cli.images import KeptImageOptions
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import JsonOpt, QuietOpt, StoreOpt, VerboseOpt, WaitOpt, parse_files
from ckptctl.cli.session import Manner, session
from ckptctl.cli.umask import of_caller
from ckptctl.errors import ExitStatus

STATUSES: Final = (
    "Exit status: 0 the job has done its work; else that of the job, as a shell tells it; 75 stopped, to be started "
    "again, or the machine is drained; "
    "93 died at the same step three times in a row; 126, 127 the command cannot be run; 2 usage; 5, 9, 13, 15 the "
    "newest snapshot cannot be restored; 10 store; 11 another ckptctl looks after this run, or --no-resume while its "
    "job runs."
)


@grouped
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The job and its arguments.")],
    schedule: ScheduleOptions,
    keep: KeepOptions,
    preemption: PreemptionOptions,
    around: AroundOptions,
    images: KeptImageOptions,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="The run that it belongs to.", show_default="the command's name"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from the newest good snapshot, or start from the beginning."),
    ] = True,
    restarts: Annotated[
        int, typer.Option("--restarts", metavar="N", min=0, help="Bring a job that died back, N times at the most.")
    ] = 0,
    if_needed: Annotated[
        bool,
        typer.Option(
            "--if-needed",
            help="Do and say nothing where the run is looked after, has come to its end or was given up (93), or the "
            "machine is drained: for cron.",
        ),
    ] = False,
    allow_io_uring: Annotated[
        bool, typer.Option("--allow-io-uring", help="Let the job have io_uring, which cannot be dumped while in use.")
    ] = False,
    files: Annotated[
        str,
        typer.Option(
            "--files", metavar="roll-back|keep|refuse", help="At a resume: files that grew since the snapshot."
        ),
    ] = "roll-back",
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> int:
    """Run a job that survives: saved when due, resumed if run again.

    A signal takes a last snapshot and ends the job. What kills ckptctl does not kill the job: run again, this takes it
    over. What the job writes goes to files of the run, and is shown here, unless --json has standard output for the
    state of the run at the end.
    """
    from ckptctl.store.names import check_run_name, run_name_from
    from ckptctl.supervise.duty import Duty, is_needed, on_duty
    from ckptctl.supervise.plan import Start
    from ckptctl.supervise.reactions import Signals
    from ckptctl.supervise.run import run as look_after
    from ckptctl.supervise.run import supervised

    mode = parse_files(files)
    signals = Signals()
    manner = Manner(json, quiet, verbose)
    opened = session(manner, store=store, lock_wait=lock_wait, flags=images.flags())
    with opened as app, signals.installed(app.interrupt):
        place = app.store()
        folder = place.run(check_run_name(run or run_name_from(tuple(command))))
        if if_needed and not is_needed(folder, app.services):
            return ExitStatus.DONE
        services = supervised(folder, app.services)
        words = Words(schedule, keep, preemption, around, app.settings)
        care = words.care_for(folder, place, (folder.stdout, folder.stderr), services)
        wanted = Start(
            command=tuple(command),
            environment=dict(os.environ),
            cwd=Path.cwd(),
            umask=of_caller(),
            resume=resume,
            restarts=restarts,
            allow_io_uring=allow_io_uring,
            files=mode,
            show_output=not (quiet or json),
        )
        with on_duty(services.host_state, Duty(folder.name, place.path, services.owner, own_call())):
            status = look_after(care, wanted, services, signals)
        return say_end(manner, "run", folder, place, services, status)
