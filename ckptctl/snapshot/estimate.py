"""How large a snapshot will be and for how long the job will stand still, from earlier dumps of this machine.

These are the ones in the store, whose manifests say all that is needed: a dump elsewhere (`--to`) leaves no trace.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from ckptctl.store.catalog import list_ids, list_runs, read_entry
from ckptctl.store.layout import Store
from ckptctl.store.manifest import Manifest
from ckptctl.units import format_duration, format_size

# Manifests are read from the newest back: enough for a median, and quick with thousands of snapshots.
_NEWEST: Final = 20
_NEAREST: Final = 5
# The steps of a dump during which a job with GPU memory does not run.
GPU_PAUSE: Final = frozenset({"lock-gpu", "checkpoint-gpu", "freeze", "resume-gpu"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a dump would take."""

    size_bytes: Annotated[int, "about what the snapshot would take on the disk: host and device memory"]
    device_bytes: Annotated[int, "of that, device memory, as far as the driver tells"]
    frozen_s: Annotated[float | None, "how long the job would stand still; null where no dump of this machine is there"]
    basis: Annotated[str, "what the time is taken from, or why there is none"]


def estimate(host_bytes: int, device_bytes: int, earlier: Iterable[Manifest], hostname: str) -> Estimate:
    """Scale the pauses of the earlier dumps of this machine that were nearest in size, with or without GPU memory."""
    size_bytes = host_bytes + device_bytes
    measured = [
        (one.images.contents_bytes, pause_s)
        for one in earlier
        if one.host.hostname == hostname and (one.gpu is not None) == (device_bytes > 0)
        for pause_s in (_pause_s(one),)
        if pause_s is not None and one.images.contents_bytes > 0
    ]
    if not measured:
        kind = "with GPU memory " if device_bytes else ""
        return Estimate(size_bytes, device_bytes, None, f"the store has no dump {kind}of this machine to judge by")
    measured.sort(key=lambda one: abs(math.log(one[0] / max(size_bytes, 1))))
    nearest = measured[:_NEAREST]
    scaled = statistics.median(pause_s * size_bytes / size for size, pause_s in nearest)
    # What a dump costs whatever its size does not shrink with it.
    frozen_s = max(scaled, min(pause_s for _, pause_s in nearest))
    return Estimate(size_bytes, device_bytes, frozen_s, _basis(nearest))


def earlier_dumps(store: Store | None) -> list[Manifest]:
    """The newest manifests of the store that can be read. Raises files.FileTrouble."""
    if store is None:
        return []
    ids = sorted(((name, run) for run in list_runs(store) for name in list_ids(run)), key=lambda one: one[0])
    entries = (read_entry(run, name) for name, run in reversed(ids[-_NEWEST:]))
    return [entry.manifest for entry in entries if entry.manifest is not None]


def _pause_s(one: Manifest) -> float | None:
    if one.gpu is not None:
        return sum(phase.seconds for phase in one.timings.phases if phase.name in GPU_PAUSE) or None
    return one.timings.criu.frozen_us / 1e6 if one.timings.criu else None


def _basis(nearest: list[tuple[int, float]]) -> str:
    sizes = [size for size, _ in nearest]
    span = " to ".join(dict.fromkeys((format_size(min(sizes)), format_size(max(sizes)))))
    pauses = [pause_s for _, pause_s in nearest]
    took = " to ".join(dict.fromkeys((format_duration(min(pauses)), format_duration(max(pauses)))))
    dumps = f"{len(nearest)} dumps" if len(nearest) > 1 else "one dump"
    return f"{dumps} of {span} on this machine, which took {took}"
