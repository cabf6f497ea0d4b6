"""What a restore is asked for, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ckptctl.command import Child
from ckptctl.cuda.gpu_map import Wish
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot import rollback
from ckptctl.snapshot.outcome import Outcome
from ckptctl.snapshot.steps import Timing
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import CudaTiming, Manifest


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What is asked for; the manifest is that of the snapshot, `store` the one in which it is, if any.

    `attached`: the caller stays and supervises the job.
    """

    folder: SnapshotFolder
    manifest: Manifest
    store: Store | None = None
    files: rollback.Mode = rollback.Mode.ROLL_BACK
    new_pid_namespace: bool = False
    attached: bool = False
    gpu_map: tuple[Wish, ...] = ()
    criu_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rolled:
    """A file that was put back to its size at the dump; what was behind it is in `tail`."""

    path: Path
    size_bytes: int
    cut_bytes: int
    tail: Path


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """A job that runs again; `pid` is its root here, which differs from the one inside a new PID namespace."""

    id: str
    run: str
    folder: Path
    pid: int
    outcome: Outcome
    processes: int
    rolled_back: tuple[Rolled, ...]
    reconnected: tuple[str, ...]
    restore_s: float
    timings: tuple[Timing, ...]
    gpu_timings: tuple[CudaTiming, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """The report, and for an attached caller the child to wait for (see `supervise`)."""

    report: RestoreReport
    root: ProcessId
    child: Child | None
