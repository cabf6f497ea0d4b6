"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptctl.errors import UsageError

if TYPE_CHECKING:
    from ckptctl.snapshot.rollback import Mode
    from ckptctl.snapshot.ways import Form

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document; progress as JSON lines on stderr.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result and errors.")]
VerboseOpt = Annotated[bool, typer.Option("--verbose", "-v", help="Say what each step took.")]
StoreOpt = Annotated[
    Path | None,
    # With Path as a parser Typer does not look at the path: on a file server that is dead that would hang.
    typer.Option("--store", metavar="DIR", parser=Path, help="The store to use.", show_default="$CKPTCTL_STORE"),
]
WaitOpt = Annotated[
    str | None,
    typer.Option(
        "--lock-wait",
        metavar="DURATION",
        help="Wait so long (30s, 5m) if another command works on this job or run, instead of refusing at once.",
    ),
]
SnapshotArg = Annotated[
    str,
    typer.Argument(
        metavar="SNAPSHOT",
        help="A folder, latest, latest~1, backup, best, best:METRIC, RUN/latest, an id or its beginning, tag:T, "
        "step:N, epoch:N.",
    ),
]
CriuOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--criu-option",
        metavar="OPTION",
        help="An option for criu instead of ours (--flag or --flag=value), for the day ours are wrong; repeatable.",
    ),
]
FilesOpt = Annotated[
    str,
    typer.Option(
        "--files",
        metavar="roll-back|keep|refuse",
        help="Files that grew since the dump: put back (what came later is kept aside), keep, or refuse.",
    ),
]
GpuMapOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu-map",
        metavar="OLD=NEW",
        help="Restore the memory of a GPU of the dump onto another one here; UUIDs or indices; repeatable.",
    ),
]
NewPidNamespaceOpt = Annotated[
    bool,
    typer.Option("--new-pid-namespace", help="Give the job a PID namespace, where its process ids are in use."),
]
ImagesOpt = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="stream|directory",
        help="The memory in one container of checked blocks, written past the page cache; or in criu's own files.",
        show_default="stream",
    ),
]
CompressOpt = Annotated[
    str | None,
    typer.Option(
        "--compress",
        metavar="off|fast|auto|better",
        help="How much time a smaller snapshot may take: zstd -5, 1 or 3; the last two take numbers apart where that "
        "pays.",
        show_default="off; of a copy as it was",
    ),
]
ROLL_BACK = "roll-back"


def parse_files(text: str) -> Mode:
    """The value of --files. Raises UsageError."""
    from ckptctl.snapshot.rollback import Mode

    if text not in [mode.value for mode in Mode]:
        raise UsageError(f"--files {text}: not known.", hint="One of roll-back, keep, refuse.")
    return Mode(text)


def parse_form(images: str, compress: str | None) -> Form:
    """The values of --images and --compress for a copy. Raises UsageError."""
    from ckptctl.images.levels import Compression
    from ckptctl.snapshot.ways import Form, Layout

    if images not in list(Layout):
        raise UsageError(f"--images {images}: not known.", hint="One of stream, directory.")
    if compress is not None and compress not in list(Compression):
        raise UsageError(f"--compress {compress}: not known.", hint=f"One of {', '.join(Compression)}.")
    form = Form(Layout(images), Compression(compress) if compress else None)
    if form.compression and form.layout is Layout.DIRECTORY:
        raise UsageError(
            "--compress is for --images stream: criu knows no compressed files.", hint="Add --images stream."
        )
    return form


def parse_pid(text: str) -> int:
    """The value of --pid. Raises UsageError."""
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--pid {text}: not a process id.", hint="A number from the first column of `ckptctl ps`.")
    return int(text)
