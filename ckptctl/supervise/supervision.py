"""What a supervisor writes down about its job: for `ckptctl status`, and for the supervisor that comes after it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process.identity import ProcessId
from ckptctl.schedule.kept import Kept
from ckptctl.store import codec
from ckptctl.store.codec import Count, Misshapen, Pid, Size
from ckptctl.store.manifest import Progress
from ckptctl.store.owner import Liveness, Owner

# The alert that a job was ended without a last snapshot; why stands in the one before it.
NOT_SAVED: Final = "W_NOT_SAVED"

_VERSION: Final = 1
_MOST_BYTES: Final = 4 << 20
# Three in a row at one step end a run; a few more tell a person what has been going on.
_DEATHS_KEPT: Final = 10
_SAMPLES_KEPT: Final = 120
_ALERTS_KEPT: Final = 20


class SupervisionDamaged(CkptctlError):
    """The record of a run cannot be read."""

    code = "E_SUPERVISION_DAMAGED"
    exit_status = ExitStatus.STORE


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    SAVED = "saved"  # ended after a last snapshot, to be started again
    STOPPED = "stopped"  # ended on request, or before a snapshot could be taken, to be started again
    FINISHED = "finished"  # the job has ended well by itself
    DIED = "died"  # the job has ended by itself, but not well
    LEFT = "left"  # the job runs, and its supervisor went away of its own accord
    NOT_STARTED = "not started"  # its program is not there, or cannot be executed
    GONE = "gone"  # a job that was only watched has ended, who knows how


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The job's tree as it was started or found."""

    pid: Annotated[Pid, "root of the tree, in the PID namespace of the supervisor"]
    start_ticks: Annotated[Count, "when it started, in clock ticks after boot"]
    started: Annotated[datetime, "when the supervisor started, restored or found it"]
    restored_from: Annotated[str | None, "the snapshot that it was restored from; null where it began anew"] = None

    @property
    def identity(self) -> ProcessId:
        """The root, to be acted on."""
        return ProcessId(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class Death:
    """The job ended by itself, and not well."""

    when: Annotated[datetime, "when that was seen"]
    status: Annotated[int, "its exit status; -N for signal N"]
    step: Annotated[Count | None, "the last step that was seen; null where none was"] = None
    restored_from: Annotated[str | None, "its newest snapshot, or else the one it was restored from"] = None


@dataclass(frozen=True, slots=True)
class Saved:
    """The newest snapshot."""

    id: Annotated[str, "its id"]
    when: Annotated[datetime, "when it was complete"]
    reason: Annotated[str, "why it was taken, for people"]
    paused_s: Annotated[float, "how long the job stood still, in seconds"]
    took_s: Annotated[float, "how long it took until the snapshot was complete, in seconds"]
    size_bytes: Annotated[Size, "what it takes on the disk"]
    step: Annotated[Count | None, "the step that it holds"] = None


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should know of."""

    when: Annotated[datetime, "when it came up"]
    code: Annotated[str, "a stable name"]
    text: Annotated[str, "in words"]


@dataclass(frozen=True, slots=True)
class Sample:
    """The job at one moment, for curves."""

    when: Annotated[datetime, "the moment"]
    memory_bytes: Annotated[Size, "resident and shared memory of the tree"]
    gpu_bytes: Annotated[Size | None, "memory on GPUs; null where that cannot be told"] = None
    step: Annotated[Count | None, "the step reached"] = None
    loss: Annotated[float | None, "the metric that is watched"] = None


@dataclass(frozen=True, slots=True)
class Supervision:
    """A run under supervision. `supervisor` is who wrote this; whether it still lives is another question."""

    run: Annotated[str, "name of the run"]
    command: Annotated[tuple[str, ...], "the words of the job; empty where it was started by others"]
    state: Annotated[RunState, "how the run stands"]
    supervisor: Annotated[Owner, "the ckptctl that wrote this"]
    updated: Annotated[datetime, "when it was written"]
    begun: Annotated[datetime | None, "when the job was last started from the beginning; null if not by `run`"] = None
    cwd: Annotated[str | None, "the folder in which that was; null if not by `run`"] = None
    outdated: Annotated[tuple[str, ...], "snapshots from before that, from which it is not resumed"] = ()
    job: Annotated[JobRecord | None, "the job; null once it has ended"] = None
    exit_status: Annotated[int | None, "how the job ended: its exit status, or -N for signal N"] = None
    progress: Annotated[Progress, "how far the training is"] = dataclasses.field(default_factory=Progress)
    last: Annotated[Saved | None, "the newest snapshot of this run that a supervisor took"] = None
    next_due: Annotated[str, "when the next snapshot is due, in words"] = ""
    snapshots_count: Annotated[Count, "snapshots taken"] = 0
    failures_count: Annotated[Count, "snapshots that failed"] = 0
    deaths: Annotated[tuple[Death, ...], "times that the job died, oldest first"] = ()
    alerts: Annotated[tuple[Alert, ...], "what a person should know of, oldest first"] = ()
    samples: Annotated[tuple[Sample, ...], "the job over time, oldest first"] = ()
    schedule: Annotated[Kept | None, "what the schedule remembers"] = None

    @property
    def given_up(self) -> bool:
        """Whether it died at the same step again and again: the deaths are forgotten once a person was told."""
        return self.state is RunState.DIED and not self.deaths

    def with_death(self, death: Death) -> Supervision:
        """The job has died."""
        return dataclasses.replace(self, deaths=(*self.deaths, death)[-_DEATHS_KEPT:])

    def with_alert(self, alert: Alert) -> Supervision:
        """Something came up. What it says of what came up before is kept once, with the newest time."""
        others = tuple(one for one in self.alerts if not alert.text.startswith(one.text))
        return dataclasses.replace(self, alerts=(*others, alert)[-_ALERTS_KEPT:])

    def with_sample(self, sample: Sample) -> Supervision:
        """The job was looked at. Half of the older samples go when there are many, so that the curve stays whole."""
        samples = (*self.samples, sample)
        if len(samples) > _SAMPLES_KEPT:
            samples = (*samples[:-1:2], samples[-1])
        return dataclasses.replace(self, samples=samples)

    def is_supervised(self, here: Owner) -> bool:
        """Whether the supervisor lives, as far as that can be told from `here`."""
        return self.state is RunState.RUNNING and self.supervisor.liveness(here) is not Liveness.DEAD


def write(path: Path, supervision: Supervision) -> None:
    """Replace the record. Raises files.FileTrouble and files.NoSpace."""
    files.write_atomically(path, codec.dumps(supervision, version=_VERSION))


def put_aside(path: Path) -> Path:
    """Give a record that cannot be read another name, and return that. Raises files.FileTrouble."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be renamed") from error
    return aside


def read_if_sound(path: Path) -> Supervision | None:
    """The record; None too where it cannot be understood, which the next supervisor of the run says and mends.

    Raises files.FileTrouble.
    """
    try:
        return read(path)
    except SupervisionDamaged:
        return None


def read(path: Path) -> Supervision | None:
    """The record; None where there is none. Raises SupervisionDamaged, files.FileTrouble."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be read") from error
    try:
        document = codec.loads(raw)
        if document.get("version") != _VERSION:
            raise Misshapen(f"it has the version {document.get('version')!a}, not {_VERSION}")
        return codec.decode(Supervision, document)
    except Misshapen as error:
        raise SupervisionDamaged(
            f"{path} cannot be understood: {error}.",
            hint="Remove it: the run then starts without what was remembered of it; its snapshots are not touched.",
        ) from error
