"""Steps, epochs and metrics as jobs write them, made into what a manifest can hold. Nothing here raises."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ckptctl.store.manifest import Progress

_LARGEST: Final = 2**63 - 1
_MOST_METRICS: Final = 256
_LONGEST_NAME: Final = 128
_GROUPED: Final = re.compile(r"(?<=\d)[,_](?=\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Found:
    """What one line of a log, or one row of a table, tells.

    `steps_in_all` is the end of the bar where the step was read from one.
    """

    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps_in_all: int | None = None


def whole(raw: object) -> int | None:
    """A step or an epoch: `1,200`, `1.53` (the epoch that is under way), 7. None for what is none."""
    value = number(_GROUPED.sub("", raw) if isinstance(raw, str) else raw)
    if value is None or not 0 <= value <= _LARGEST:
        return None
    # A float has too few digits for the largest of integers.
    return raw if isinstance(raw, int) else min(int(value), _LARGEST)


def number(raw: object) -> float | None:
    """A metric: a number, or one written as text, `nan` and `inf` among them. None for what is none."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)) or (isinstance(raw, str) and len(raw) > 400):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    too_large = math.isinf(value) and not (isinstance(raw, float) or "inf" in str(raw).lower())
    return None if too_large else value


def metrics(pairs: Iterable[tuple[object, object]]) -> dict[str, float]:
    """Those of the pairs that are a name and a number, the first 256 of them."""
    found: dict[str, float] = {}
    for name, raw in pairs:
        value = number(raw)
        if value is not None and isinstance(name, str) and _is_name(name) and len(found) < _MOST_METRICS:
            found[name] = value
    return found


def advance(before: Progress, found: Found) -> Progress:
    """What is known after `found`; its metrics were measured at its step, else at the last one.

    Where the step goes back, work was taken back, and with it what was measured later. A step that begins anew with
    each epoch is none of that.
    """
    step = before.step if found.step is None else found.step
    epoch = before.epoch if found.epoch is None else found.epoch
    known, steps = before.metrics, before.metric_steps
    new_epoch = epoch is not None and before.epoch is not None and epoch > before.epoch
    if step is not None and before.step is not None and step < before.step and not new_epoch:
        known, steps = not_after(before, step)
    if found.metrics:
        merged = {**known, **found.metrics}
        names = list(merged)[-_MOST_METRICS:]
        measured = (
            {**steps, **dict.fromkeys(found.metrics, step)} if step is not None else without(steps, found.metrics)
        )
        known = {name: merged[name] for name in names}
        steps = {name: measured[name] for name in names if name in measured}
    return replace(before, step=step, epoch=epoch, metrics=known, metric_steps=steps)


def not_after(progress: Progress, step: int) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """The metrics, and their steps, without those measured later than `step`."""
    steps = {name: measured for name, measured in progress.metric_steps.items() if measured <= step}
    kept = progress.metrics.keys() - (progress.metric_steps.keys() - steps.keys())
    return {name: value for name, value in progress.metrics.items() if name in kept}, steps


def without(steps: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """The steps without those of these names."""
    dropped = set(names)
    return {name: step for name, step in steps.items() if name not in dropped}


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and not name.isspace()
