"""ckptctl watch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from ckptctl.cli.again import own_call
from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions, Words, say_end
from ckptctl.cli.groups import grouped
from ckptctl.cli.images import KeptImageOptions
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import JsonOpt, QuietOpt, StoreOpt, VerboseOpt, WaitOpt, parse_pid
from ckptctl.cli.session import Manner, session

STATUSES: Final = (
    "Exit status: 0 the job has ended, or is left alone; 75 the job was saved and ended, to be restored, or the "
    "machine is drained; 2 usage; 6 no such process; 10 store; 11 another ckptctl looks after this run."
)


@grouped
def watch(
    pid: Annotated[str, typer.Option("--pid", "-p", metavar="PID", help="The root of the process tree.")],
    schedule: ScheduleOptions,
    keep: KeepOptions,
    preemption: PreemptionOptions,
    around: AroundOptions,
    images: KeptImageOptions,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="The run that it belongs to.",
            show_default="that of the job, or the job's name",
        ),
    ] = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> int:
    """Save a job that runs already, whenever it is due.

    How it runs is not touched. SIGTERM and Ctrl-C end the watch and leave the job alone, unless --on-signal says
    otherwise. The job's end, which is not a child of this, tells no exit status.
    """
    from ckptctl.process.identity import identify, no_such_process
    from ckptctl.process.member import command_words
    from ckptctl.process.proc import Vanished
    from ckptctl.store.names import check_run_name, run_name_from
    from ckptctl.supervise.attended import run_of
    from ckptctl.supervise.duty import Duty, Watched, on_duty
    from ckptctl.supervise.reactions import Signals
    from ckptctl.supervise.run import supervised
    from ckptctl.supervise.watch import watch as look_after

    number = parse_pid(pid)
    signals = Signals()
    manner = Manner(json, quiet, verbose)
    opened = session(manner, store=store, lock_wait=lock_wait, flags=images.flags())
    with opened as app, signals.installed(app.interrupt):
        root = identify(number)
        try:
            command = command_words(number)
        except Vanished as error:
            raise no_such_process(number) from error
        place, name = app.store(), run or run_name_from(command)
        kept = None if run else run_of(number, app.services)
        if kept is not None and kept.kept:
            root, name, place = kept.root, kept.run.name, place if store else kept.store
        folder = place.run(check_run_name(name))
        services = supervised(folder, app.services)
        words = Words(schedule, keep, preemption, around, app.settings)
        care = words.care_for(folder, place, _logs(root.pid), services, watched=True)
        duty = Duty(folder.name, place.path, services.owner, own_call(), Watched(root.pid, root.start_ticks))
        with on_duty(services.host_state, duty):
            status = look_after(care, root, command, services, signals)
        return say_end(manner, "watch", folder, place, services, status)


def _logs(pid: int) -> tuple[Path, ...]:
    """The files to which the job's output goes, as far as it goes to files that may be looked at."""
    found = []
    for number in (1, 2):
        with suppress(OSError):
            output = Path(f"/proc/{pid}/fd/{number}")
            if output.is_file():
                found.append(output.resolve())
    return tuple(dict.fromkeys(found))
