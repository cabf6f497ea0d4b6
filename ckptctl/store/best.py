"""The best snapshot of a run: by which metric, and which one that is.

The metric is that of the last `--keep-best`; it is remembered beside the snapshots, so that `best` means something.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from ckptctl import files
from ckptctl.errors import UsageError
from ckptctl.store import codec
from ckptctl.store.codec import Misshapen
from ckptctl.store.layout import RunFolder

_VERSION: Final = 1
# What the last word of a metric's name says of the better direction.
_LESS_IS_BETTER: Final = frozenset(
    {"loss", "nll", "perplexity", "ppl", "bpb", "bpc", "error", "err", "mae", "mse", "rmse", "wer", "cer", "fid"}
)
_MORE_IS_BETTER: Final = frozenset(
    {
        *("accuracy", "acc", "acc1", "acc5", "f1", "auc", "auroc", "precision", "recall", "map", "iou", "miou", "dice"),
        *("bleu", "rouge", "score", "reward", "return", "psnr", "ssim", "r2"),
    }
)


class Mode(StrEnum):
    """Which values of a metric are the better ones."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class BestBy:
    """The metric by which a snapshot is the best one."""

    metric: Annotated[str, "its name"]
    mode: Annotated[Mode, "which values are better"]

    @classmethod
    def of(cls, metric: str, mode: Mode | None = None) -> BestBy:
        """The metric, with the direction that its name implies where none is given (`val_loss`: min).

        Raises UsageError where the name implies none: the worst snapshot in the place of the best is no guess.
        """
        word = re.split(r"[^a-z0-9]", metric.lower())[-1]
        if mode is None and (word in _LESS_IS_BETTER or word.endswith("loss")):
            mode = Mode.MIN
        if mode is None and word in _MORE_IS_BETTER:
            mode = Mode.MAX
        if mode is None:
            raise UsageError(
                f"Whether less or more of {metric!a} is better cannot be told from its name.",
                hint=f"Say which: --mode min or --mode max; in a selector best:{metric}:min.",
            )
        return cls(metric, mode)

    def __str__(self) -> str:
        return f"{self.metric} ({self.mode})"


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of a snapshot: `values` by name, `steps` at which they were measured where that is known."""

    id: str
    created: datetime
    step: int | None
    values: Mapping[str, float]
    steps: Mapping[str, int] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """Its value of the metric. What has come to NaN or infinity, or was measured after its step, is none."""
        value = self.values.get(metric, math.nan)
        measured = self.steps.get(metric)
        late = measured is not None and self.step is not None and measured > self.step
        return value if math.isfinite(value) and not late else None


def best_first(by: BestBy, snapshots: Iterable[Measured]) -> tuple[Measured, ...]:
    """Those with a value, the best first; of several with the same measurement the earliest alone.

    One measurement is carried on to the snapshots after it until the next: they are not the best again and again.
    Where the steps are not known, the same value is taken for the same measurement.
    """
    earliest: dict[tuple[float, int | None], Measured] = {}
    for snapshot in sorted(snapshots, key=lambda one: (one.created, one.id)):
        value = snapshot.value(by.metric)
        if value is not None:
            earliest.setdefault((value, snapshot.steps.get(by.metric)), snapshot)
    sign = 1 if by.mode is Mode.MIN else -1
    # Of equal values the earlier stays in front: sorting is stable, and they came in that order.
    return tuple(earliest[key] for key in sorted(earliest, key=lambda key: sign * key[0]))


def remember(run: RunFolder, by: BestBy) -> None:
    """Let `best` in this run be that by this metric. Raises files.FileTrouble and files.NoSpace."""
    if remembered(run) != by:
        files.write_atomically(run.best_by, codec.dumps(by, version=_VERSION))


def remembered(run: RunFolder) -> BestBy | None:
    """By which metric a snapshot is the best in this run; None where nobody has said so, or it cannot be read."""
    try:
        return codec.decode(BestBy, codec.loads(run.best_by.read_bytes()))
    except (OSError, Misshapen):
        return None


def forget(run: RunFolder) -> None:
    """Forget the metric, for a run without snapshots. Raises files.FileTrouble."""
    try:
        run.best_by.unlink(missing_ok=True)
    except OSError as error:
        raise files.trouble(error, f"{run.best_by} cannot be removed") from error
