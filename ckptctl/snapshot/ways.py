"""Which way the images of a dump come to the disk: what one may choose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ckptctl.images.levels import Compression


class Layout(StrEnum):
    """What lies in the folder of images."""

    STREAM = "stream"  # small files, and the memory in one container of checked blocks
    DIRECTORY = "directory"  # what criu writes by itself


class Aim(StrEnum):
    """What a stream of images is to be good at."""

    AUTO = "auto"  # a short pause of a job that goes on, with up to a quarter of the free memory, and soon on the disk
    DURABLE = "durable"  # soon on the disk, with little memory
    PAUSE = "pause"  # the shortest pause of a job that goes on, with up to half of the free memory


@dataclass(frozen=True, slots=True)
class Form:
    """What a copy of a snapshot looks like; compressed as the original is where nothing else is said."""

    layout: Layout
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How the images of a dump come to the disk; all but the first concerns a stream alone.

    `dedup`: what an earlier snapshot of the run has is shared with it, not stored again.
    """

    layout: Layout = Layout.STREAM
    aim: Aim = Aim.AUTO
    compression: Compression = Compression.OFF
    dedup: bool = True
