"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document; progress as JSON lines on stderr.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result and errors.")]
VerboseOpt = Annotated[bool, typer.Option("--verbose", "-v", help="Say what each step took.")]
StoreOpt = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="The store to use.", show_default="$CKPTCTL_STORE")
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
        help="A folder, latest, latest~1, backup, RUN/latest, an id or its beginning, tag:T, step:N, epoch:N.",
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
