"""What a dump is asked for, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ckptctl.snapshot import gpu
from ckptctl.snapshot.outcome import Outcome
from ckptctl.snapshot.steps import Timing
from ckptctl.snapshot.ways import Layout, Way
from ckptctl.store.layout import Store

if TYPE_CHECKING:
    from ckptctl.store import manifest


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """The snapshot goes to a store; the run's name is made from the job's command line where it is None."""

    store: Store
    run: str | None


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """The snapshot becomes this folder, which must be empty or missing."""

    folder: Path


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """What is asked for. `criu_options` are further words for criu, for the day our choice is wrong.

    `progress` is how far the job is, where that was said; else `read_progress` is asked, also while the job stands
    still, and must be quick and raise nothing.

    `gpu_lock_timeout_s` is how long work that was given to a GPU may take to come to its end.
    """

    pid: int
    target: StoreTarget | FolderTarget
    leave_running: bool = False
    progress: manifest.Progress | None = None
    read_progress: Callable[[], manifest.Progress] | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    keep_environment: bool = False
    cuda: gpu.Use = gpu.Use.DETECT
    gpu_lock_timeout_s: float = 60.0
    criu_options: tuple[str, ...] = ()
    way: Way = field(default_factory=Way)


@dataclass(frozen=True, slots=True)
class DumpReport:
    """A dump that succeeded. Times are in seconds; `frozen_s` is CRIU's own figure for the job's pause.

    `progress` is how far the job is in the snapshot; its id may name an earlier step, that of when the dump began.

    `image_bytes` is what the snapshot stores itself, `contents_bytes` what CRIU gave, of which `shared_bytes` were
    stored already.
    `buffer_bytes` is the memory for what CRIU gives faster than the disk takes it, 0 where CRIU wrote its images
    itself; `peak_bytes` the most that ckptctl has held in all, None where the kernel does not tell.
    """

    id: str
    run: str
    folder: Path
    outcome: Outcome
    progress: manifest.Progress
    processes: int
    image_bytes: int
    contents_bytes: int
    shared_bytes: int
    frozen_s: float
    timings: tuple[Timing, ...]
    images: Layout
    buffer_bytes: int
    peak_bytes: int | None
    criu: str
    options: tuple[manifest.CriuOption, ...]
    gpu: manifest.Gpu | None
    warnings: tuple[str, ...]
