"""The options that say how the images of a job come to the disk, and how they are kept there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from ckptctl.cli.options import CompressOpt, ImagesOpt


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the images of a job come to the disk, for all that take snapshots; None for what is not said.

    The names of its fields are the keys of settings.
    """

    images: ImagesOpt = None
    aim: Annotated[
        str | None,
        typer.Option(
            "--aim",
            metavar="auto|durable|pause",
            help="Soon on the disk with little memory, or the shortest pause of a job that goes on with up to half of "
            "the free memory; auto: that with up to a quarter, and only what the kernel gives at once.",
            show_default="auto",
        ),
    ] = None

    compress: CompressOpt = None
    dedup: Annotated[
        bool | None,
        typer.Option(
            "--dedup/--no-dedup",
            help="Share what the snapshot before has stored already, as long as either is there; not with --to.",
            show_default="--dedup",
        ),
    ] = None

    def flags(self) -> dict[str, str]:
        """Those that were said, for `session`."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: {True: "on", False: "off"}.get(value, value) for key, value in said.items()}


@dataclass(frozen=True, slots=True)
class KeptImageOptions(ImageOptions):
    """And what becomes of them, for all that look after a job."""

    recompress: Annotated[
        str | None,
        typer.Option(
            "--recompress",
            metavar="off|fast|auto|better",
            help="Compress the snapshots that are kept, in the background at the lowest priority.",
            show_default="off",
        ),
    ] = None
