"""What retention looks at, and what it finds: each snapshot with every reason to keep or to remove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum

from ckptctl.store.best import Measured


class Condition(Enum):
    """Whether a snapshot can be what a rule keeps."""

    SOUND = "sound"
    DAMAGED = "damaged"  # does not count for any rule
    TOO_NEW = "too new"  # written by a later ckptctl: this one cannot judge it


@dataclass(frozen=True, slots=True)
class Facts:
    """What the policy looks at in one snapshot. `size_bytes` is what it takes on the disk.

    `metric_steps`: where each metric was measured, as far as that is known.
    `verified`: every byte was read and compared with its digest.
    `in_use`: an action on it was cut off and is not mended yet. `labels_known` is false where its pin cannot be read.
    """

    id: str
    created: datetime
    size_bytes: int = 0
    condition: Condition = Condition.SOUND
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    metric_steps: Mapping[str, int] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    pinned: bool = False
    verified: bool = False
    is_latest: bool = False
    is_backup: bool = False
    is_best: bool = False
    in_use: bool = False
    labels_known: bool = True

    @property
    def measured(self) -> Measured:
        """Its metrics."""
        return Measured(self.id, self.created, self.step, self.metrics, self.metric_steps)


@dataclass(frozen=True, slots=True)
class Disk:
    """The store's file system. `free_bytes` counts what lies in the trash as free, since `prune` gives that back."""

    free_bytes: int
    total_bytes: int


class Rule(StrEnum):
    """What decided on a snapshot; those up to TOO_NEW keep it under any policy, those from UNKEPT on remove it."""

    LATEST = "latest"
    BACKUP = "backup"
    BEST = "best"
    PINNED = "pinned"
    NEWEST_SOUND = "newest-sound"
    NEWEST_VERIFIED = "newest-verified"
    IN_USE = "in-use"
    FUTURE = "future"
    LABELS_UNKNOWN = "labels-unknown"
    TOO_NEW = "too-new"
    DAMAGED = "damaged"
    NO_RULES = "no-rules"
    KEEP_LAST = "keep-last"
    KEEP_WITHIN = "keep-within"
    KEEP_HOURLY = "keep-hourly"
    KEEP_DAILY = "keep-daily"
    KEEP_WEEKLY = "keep-weekly"
    KEEP_EVERY_STEPS = "keep-every-steps"
    KEEP_EPOCHS = "keep-epochs"
    KEEP_BEST = "keep-best"
    KEEP_TAG = "keep-tag"
    UNKEPT = "unkept"
    MAX_SIZE = "max-size"
    MIN_FREE = "min-free"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a snapshot is kept or removed; `place` counts from 1 where the rule has an order."""

    rule: Rule
    text: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one snapshot, with every reason: those to keep it, and then those to remove it all the same."""

    facts: Facts
    kept: bool
    reasons: tuple[Reason, ...]

    @property
    def id(self) -> str:
        return self.facts.id


@dataclass(frozen=True, slots=True)
class Unmet:
    """A limit that cannot be kept, and a sentence on that."""

    rule: Rule
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts, oldest snapshot first, and the limits that cannot be kept."""

    verdicts: tuple[Verdict, ...]
    unmet: tuple[Unmet, ...] = ()

    @property
    def kept(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.kept)

    @property
    def removed(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if not verdict.kept)

    @property
    def freed_bytes(self) -> int:
        """What the removed ones take on the disk."""
        return sum(verdict.facts.size_bytes for verdict in self.removed)
