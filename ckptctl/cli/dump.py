"""ckptctl dump."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.groups import grouped
from ckptctl.cli.images import ImageOptions
from ckptctl.cli.options import CriuOpt, JsonOpt, QuietOpt, StoreOpt, VerboseOpt, WaitOpt, parse_pid
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import UsageError
from ckptctl.output import text
from ckptctl.units import format_duration, format_size, parse_duration

if TYPE_CHECKING:
    from ckptctl.app import App
    from ckptctl.snapshot.dump_request import DumpReport, FolderTarget, StoreTarget
    from ckptctl.store.manifest import Progress

STATUSES: Final = (
    "Exit status: 0 saved; 2 usage; 3 saved, but the job does not end; 5 something stands in the way; "
    "6 no such process; 7 failed, the job runs on; 8 failed and the job is lost; 10 store; 11 locked; 14 no space; "
    "15 no driver that can save GPU memory; 16 the GPU does not come to rest; 130, 143 interrupted."
)


@grouped
def dump(
    images: ImageOptions,
    pid: Annotated[str, typer.Option("--pid", "-p", metavar="PID", help="The root of the process tree to save.")],
    leave_running: Annotated[
        bool, typer.Option("--leave-running", "-R", help="Let the job go on; otherwise it ends once it is saved.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Save to this folder (empty or new), not to the store.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="NAME",
            help="The run in the store that it belongs to.",
            show_default="that of the job, or the job's name",
        ),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; repeatable.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note for people.")] = None,
    step: Annotated[int | None, typer.Option("--step", metavar="N", min=0, help="The training step reached.")] = None,
    epoch: Annotated[int | None, typer.Option("--epoch", metavar="N", min=0, help="The epoch reached.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME=VALUE", help="A metric; repeatable.")
    ] = None,
    keep_environment: Annotated[
        bool,
        typer.Option("--keep-environment", help="Write the values of environment variables into the manifest too."),
    ] = False,
    cuda: Annotated[
        bool | None,
        typer.Option(
            "--cuda/--no-cuda",
            help="Insist on GPU memory to save, or refuse a job that has some; without either it is saved if there.",
            show_default=False,
        ),
    ] = None,
    gpu_timeout: Annotated[
        str,
        typer.Option(
            "--gpu-timeout", metavar="DURATION", help="How long work that was given to a GPU may take to end."
        ),
    ] = "60s",
    criu_option: CriuOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> int:
    """Save a running job: process tree, memory, open files.

    The job ends once the snapshot is complete and on the disk, or goes on at once with --leave-running.
    Whatever goes wrong before that, it runs on.
    """
    from ckptctl.snapshot.dump import dump as save
    from ckptctl.snapshot.dump_request import DumpRequest
    from ckptctl.snapshot.gpu import Use
    from ckptctl.store.names import check_tag
    from ckptctl.supervise.attended import for_its_run

    manner = Manner(json, quiet, verbose)
    metrics = dict(parse_metric(text) for text in metric or ())
    with session(manner, store=store, lock_wait=lock_wait, flags=images.flags()) as app:
        request = DumpRequest(
            pid=parse_pid(pid),
            target=_target(app, to, run),
            leave_running=leave_running,
            progress=_progress(step, epoch, metrics),
            tags=tuple(check_tag(text) for text in tag or ()),
            note=note,
            keep_environment=keep_environment,
            cuda=Use.DETECT if cuda is None else Use.REQUIRE if cuda else Use.REFUSE,
            gpu_lock_timeout_s=parse_duration(gpu_timeout),
            criu_options=tuple(criu_option or ()),
            way=app.settings.way,
        )
        report = save(for_its_run(request, app.services, elsewhere=store is not None), app.services)
    return emit(manner, "dump", report, _words(report, verbose=verbose))


def parse_metric(text: str) -> tuple[str, float]:
    """`val_loss=1.5` as a name and a number. Raises UsageError."""
    name, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
        equals = ""
    if not equals or not name.strip():
        raise UsageError(f"--metric {text}: expected a name and a number.", hint="For example --metric val_loss=1.25")
    return name.strip(), number


def _progress(step: int | None, epoch: int | None, metrics: dict[str, float]) -> Progress | None:
    if step is None and epoch is None and not metrics:
        return None
    from ckptctl.progress.given import CommandLine

    return CommandLine(step, epoch, metrics).read()


def _target(app: App, to: Path | None, run: str | None) -> StoreTarget | FolderTarget:
    from ckptctl.snapshot.dump_request import FolderTarget, StoreTarget

    if to is None:
        return StoreTarget(app.store(), run)
    if run is not None:
        raise UsageError("--to and --run exclude each other.", hint="A snapshot goes to a folder or to the store.")
    return FolderTarget(to)


def _words(report: DumpReport, *, verbose: bool) -> str:
    takes = text.stored(report.image_bytes, report.contents_bytes, report.shared_bytes)
    lines = [
        report.outcome.sentence,
        f"snapshot {report.id} of the run {report.run}: {takes}, "
        f"{text.counted(report.processes, 'process', 'processes')}, "
        f"the job stood still for {format_duration(report.frozen_s)}",
        *(f"  {line}" for line in text.gpu_timings(report.gpu.timings if report.gpu else ())),
        *(_memory(report) if verbose else ()),
        f"  {report.folder}",
    ]
    return text.sentences(lines)


def _memory(report: DumpReport) -> list[str]:
    """What ckptctl itself took, where the kernel tells."""
    if report.peak_bytes is None:
        return []
    buffers = f", {format_size(report.buffer_bytes)} of it for buffers" if report.buffer_bytes else ""
    return [f"  ckptctl used {format_size(report.peak_bytes)} of memory{buffers}"]
