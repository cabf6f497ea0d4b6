"""Facts about a run as a text file for Prometheus, read by node_exporter's textfile collector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Reporter

# The collector runs as a user of its own; there are no secrets in here.
_READABLE: Final = 0o644


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is published of a run; None and an empty tuple for what is not known, which is then left out.

    Times are Unix time. The two counts are of all the life of the run, as far as the caller can tell.
    """

    run: str
    running: bool
    snapshots_count: int
    failures_count: int
    last_success_s: float | None = None
    phases_s: tuple[tuple[str, float], ...] = ()
    frozen_s: float | None = None
    snapshot_bytes: int | None = None
    next_due_s: float | None = None
    step: int | None = None
    epoch: float | None = None
    metrics: tuple[tuple[str, float], ...] = ()
    store_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    kind: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def render(facts: RunFacts) -> str:
    """The facts in the text format of Prometheus, version 0.0.4."""
    return "".join(_rendered(family, facts.run) for family in _families(facts) if family.samples)


class MetricsFile:
    """A file that is replaced as a whole; that it cannot be written is said once and is no failure of the run."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path = path
        self._reporter = reporter
        self._failing = False

    def write(self, facts: RunFacts) -> None:
        """Replace the file by these facts."""
        try:
            files.write_atomically(self._path, render(facts).encode(), mode=_READABLE)
        except CkptctlError as error:
            if not self._failing:
                hint = error.hint or ""
                self._reporter.report(Caution(f"The metrics cannot be written. {error.message} {hint}", error.code))
            self._failing = True
        else:
            self._failing = False


def _families(facts: RunFacts) -> Iterable[_Family]:
    yield _one("ckptctl_running", "Whether the job of the run is running.", int(facts.running))
    yield _one("ckptctl_snapshots_total", "Snapshots that were committed.", facts.snapshots_count, kind="counter")
    yield _one("ckptctl_failures_total", "Snapshots that failed.", facts.failures_count, kind="counter")
    yield _one("ckptctl_last_success_timestamp_seconds", "When the last snapshot was committed.", facts.last_success_s)
    next_due_s = facts.next_due_s if facts.running else None
    yield _one("ckptctl_next_due_timestamp_seconds", "When the next snapshot is due.", next_due_s)
    about = "How long each phase of the last snapshot took."
    yield _labelled("ckptctl_snapshot_duration_seconds", about, "phase", facts.phases_s)
    yield _one("ckptctl_snapshot_frozen_seconds", "How long the last snapshot paused the job.", facts.frozen_s)
    yield _one("ckptctl_snapshot_bytes", "Size of the last snapshot.", facts.snapshot_bytes)
    yield _one("ckptctl_step", "The step that the job has reached.", facts.step)
    yield _one("ckptctl_epoch", "The epoch that the job has reached.", facts.epoch)
    yield _labelled("ckptctl_metric", "What the job reports of itself.", "name", facts.metrics)
    yield _one("ckptctl_store_free_bytes", "Free space where the snapshots are stored.", facts.store_free_bytes)


def _one(name: str, about: str, value: float | None, *, kind: str = "gauge") -> _Family:
    return _Family(name, kind, about, () if value is None else (({}, value),))


def _labelled(name: str, about: str, label: str, values: tuple[tuple[str, float], ...]) -> _Family:
    # A label that stood twice would make the collector refuse the whole file: the last one counts.
    return _Family(name, "gauge", about, tuple(({label: key}, value) for key, value in dict(values).items()))


def _rendered(family: _Family, run: str) -> str:
    lines = [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
    for labels, value in family.samples:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"run": run, **labels}.items())
        lines.append(f"{family.name}{{{shown}}} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    # What is no text (a lone surrogate, of a name that is not UTF-8) would make the whole file unreadable.
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
