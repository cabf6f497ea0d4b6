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
# Words in the names of metrics, without digits: f1, r2, rouge2.
_MORE_IS_BETTER: Final = frozenset(
    {
        "acc", "accuracy", "auc", "auroc", "auprc", "ap", "map", "f", "bleu", "sacrebleu", "chrf", "rouge", "rougel",
        "meteor", "cider", "precision", "recall", "sensitivity", "specificity", "iou", "miou", "dice", "psnr", "ssim",
        "r", "score", "reward", "return", "ndcg", "mrr", "em", "exact", "correct", "mcc", "kappa", "success", "winrate",
    }
)  # fmt: skip
_LESS_IS_BETTER: Final = frozenset(
    {
        "loss", "error", "err", "perplexity", "ppl", "nll", "bpb", "bpc", "mse", "mae", "rmse", "wer", "cer", "fid",
    }
)  # fmt: skip


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
        mode = mode or mode_in_name(metric)
        if mode is None:
            raise UsageError(
                f"Whether less or more of {metric!a} is better cannot be told from its name.",
                hint=f"Say which: --mode min or --mode max; in a selector best:{metric}:min.",
            )
        return cls(metric, mode)

    def __str__(self) -> str:
        return f"{self.metric} ({self.mode})"


def mode_in_name(metric: str) -> Mode | None:
    """Which values of a metric are better, as far as its name says so; a loss of anything is a loss."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", metric)
    words = {word.rstrip("0123456789") for name in (metric, split) for word in re.split(r"[\W_]+", name.lower())}
    if words & _LESS_IS_BETTER:
        return Mode.MIN
    return Mode.MAX if words & _MORE_IS_BETTER else None


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
