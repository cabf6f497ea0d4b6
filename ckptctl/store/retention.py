"""What a user wants to keep: the rules and limits of a run, as one frozen value."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.store.best import BestBy
from ckptctl.units import format_size

ALL: Final = sys.maxsize

_COUNTED: Final = (
    "keep_last", "keep_within_s", "keep_hourly", "keep_daily", "keep_weekly", "keep_every_steps", "keep_epochs",
    "keep_best",
)  # fmt: skip


class RetentionRefused(UsageError):
    """A policy that says nothing, or what cannot be."""

    code = "E_RETENTION"


@dataclass(frozen=True, slots=True)
class MinFree:
    """Space that must be free on the store's file system: bytes, or a percentage of the whole."""

    size_bytes: int | None = None
    percent: float | None = None

    def wanted_bytes(self, total_bytes: int) -> int:
        """How much that is on a file system of this size."""
        if self.percent is not None:
            return math.ceil(total_bytes * self.percent / 100)
        return self.size_bytes or 0

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent is not None else format_size(self.size_bytes or 0)


@dataclass(frozen=True, slots=True)
class Retention:
    """A policy. Numbers are counts of snapshots, ALL for no limit; None means that there is no such rule.

    Raises RetentionRefused for what cannot be.
    """

    keep_last: int | None = None
    keep_within_s: float | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_every_steps: int | None = None
    keep_epochs: int | None = None
    keep_best: int | None = None
    best_by: BestBy | None = None
    keep_tags: tuple[str, ...] = ()
    max_size_bytes: int | None = None
    min_free: MinFree | None = None

    def __post_init__(self) -> None:
        for name in _COUNTED:
            self._require_positive(name)
        if self.keep_best is not None and self.best_by is None:
            raise RetentionRefused(
                "--keep-best needs the metric by which a snapshot is the best.", hint="For example --metric val_loss"
            )
        if self.best_by is not None and self.keep_best is None:
            raise RetentionRefused("--metric and --mode belong to --keep-best.", hint="For example --keep-best 3")
        if self.max_size_bytes == 0 or (self.min_free is not None and self.min_free.size_bytes == 0):
            raise RetentionRefused("A limit of 0 bytes is none.", hint="For example --max-size 500G, --min-free 10%")
        percent = self.min_free.percent if self.min_free else None
        if percent is not None and not 0 < percent < 100:
            raise RetentionRefused(
                f"{percent:g}% of a file system cannot be kept free.", hint="For example --min-free 10%"
            )

    @property
    def has_rules(self) -> bool:
        """Whether it says what to keep; without that everything is kept that the limits allow."""
        return bool(self.keep_tags) or any(getattr(self, name) is not None for name in _COUNTED)

    @property
    def is_empty(self) -> bool:
        """Whether it has neither rules nor limits: nothing would ever be removed."""
        return not self.has_rules and self.max_size_bytes is None and self.min_free is None

    def require_something(self) -> None:
        """Raise RetentionRefused where it is empty."""
        if self.is_empty:
            raise RetentionRefused(
                "Nothing says which snapshots are to be kept.",
                hint="Give at least one rule, such as --keep-last 10, or a limit, such as --max-size 500G.",
            )

    def _require_positive(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None and not value > 0:
            option = "--" + name.removesuffix("_s").replace("_", "-")
            raise RetentionRefused(
                f"{option} must be more than 0.",
                hint=f"Leave {option} out where the rule is not wanted; latest and backup are always kept.",
            )
