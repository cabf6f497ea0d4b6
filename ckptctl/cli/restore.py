"""ckptctl restore."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import (
    ROLL_BACK,
    CriuOpt,
    FilesOpt,
    GpuMapOpt,
    JsonOpt,
    NewPidNamespaceOpt,
    QuietOpt,
    SnapshotArg,
    StoreOpt,
    VerboseOpt,
    WaitOpt,
    parse_files,
)
from ckptctl.cli.session import Manner, emit, session
from ckptctl.output import text
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from ckptctl.snapshot.restore_request import Restored, RestoreReport

STATUSES: Final = (
    "Exit status: 0 runs again; 2 usage; 4 no such snapshot; 5 something stands in the way; 9 failed; 10 store; "
    "11 locked; 13 damaged; 14 no space; 15 ids in use or another machine; 130, 143 interrupted. "
    "With --wait, that of the job."
)


def restore(
    snapshot: SnapshotArg,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Look in this run only.")] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", "-w", help="Stay with the job: pass signals on, end with its exit status."),
    ] = False,
    new_pid_namespace: NewPidNamespaceOpt = False,
    files: FilesOpt = ROLL_BACK,
    gpu_map: GpuMapOpt = None,
    criu_option: CriuOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> int:
    """Bring a saved job back; it goes on where it was.

    Without --wait it runs on by itself. Whatever goes wrong before it runs, everything is put back as it was.
    """
    from ckptctl.cuda.gpu_map import parse_wish
    from ckptctl.snapshot.restore import restore as bring_back
    from ckptctl.snapshot.restore_request import RestoreRequest
    from ckptctl.snapshot.select import Chosen, restore_chosen
    from ckptctl.snapshot.supervise import Supervisor

    manner = Manner(json, quiet, verbose)
    mode = parse_files(files)
    supervisor = Supervisor()
    with ExitStack() as held:
        if wait:
            held.enter_context(supervisor.listening())
        app = held.enter_context(session(manner, store=store, lock_wait=lock_wait))

        def bring(chosen: Chosen) -> Restored:
            request = RestoreRequest(
                folder=chosen.folder,
                manifest=chosen.manifest,
                store=chosen.store,
                files=mode,
                new_pid_namespace=new_pid_namespace,
                attached=wait,
                gpu_map=tuple(parse_wish(text) for text in gpu_map or ()),
                criu_options=tuple(criu_option or ()),
            )
            return bring_back(request, app.services)

        restored = restore_chosen(app.store_if_any(), snapshot, run, app.services, bring)
        app.reporter.close()  # from here the terminal may be the job's
        said = emit(manner, "restore", restored.report, _words(restored.report))
        return supervisor.wait(restored, app.interrupt.received) if wait else said


def _words(report: RestoreReport) -> str:
    lines = [report.outcome.sentence]
    lines += [
        f"  {item.path} was put back to {format_size(item.size_bytes)}; "
        f"the {format_size(item.cut_bytes)} that came later are in {item.tail}"
        for item in report.rolled_back
    ]
    lines.append(f"snapshot {report.id} of the run {report.run}, restored in {format_duration(report.restore_s)}")
    lines += [f"  {line}" for line in text.gpu_timings(report.gpu_timings)]
    return text.sentences(lines)
