"""The options that say which snapshots are kept: `forget` and whatever takes snapshots by itself share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.errors import UsageError
from ckptctl.units import parse_duration, parse_size

if TYPE_CHECKING:
    from ckptctl.store.best import BestBy
    from ckptctl.store.retention import MinFree, Retention

_ALL: Final = "all"

KeepLastOpt = Annotated[
    str | None, typer.Option("--keep-last", metavar="N|all", help="Keep the newest N snapshots, latest among them.")
]
KeepEpochsOpt = Annotated[
    str | None,
    typer.Option(
        "--keep-epochs", metavar="N|all", help="Keep the last snapshot of each epoch, of the newest N epochs."
    ),
]
KeepBestOpt = Annotated[
    str | None, typer.Option("--keep-best", metavar="N|all", help="Keep the N with the best values of --metric.")
]
MetricOpt = Annotated[str | None, typer.Option("--metric", metavar="NAME", help="The metric for --keep-best.")]
ModeOpt = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="min|max",
        help="Which values of it are better.",
        show_default="what its name says: min for val_loss, max for accuracy",
    ),
]
KeepStepsOpt = Annotated[
    str | None,
    typer.Option("--keep-every-steps", metavar="N", help="Keep the snapshot nearest to each multiple of N steps."),
]
KeepHourlyOpt = Annotated[
    str | None, typer.Option("--keep-hourly", metavar="N|all", help="Keep the newest of each hour (UTC), N of them.")
]
KeepDailyOpt = Annotated[
    str | None, typer.Option("--keep-daily", metavar="N|all", help="Keep the newest of each day (UTC), N of them.")
]
KeepWeeklyOpt = Annotated[
    str | None,
    typer.Option("--keep-weekly", metavar="N|all", help="Keep the newest of each week (from Monday, UTC), N of them."),
]
KeepWithinOpt = Annotated[
    str | None,
    typer.Option("--keep-within", metavar="DURATION", help="Keep what is no older than this before the newest one."),
]
KeepTagOpt = Annotated[
    list[str] | None, typer.Option("--keep-tag", metavar="TAG", help="Keep what has this tag; repeatable.")
]
MaxSizeOpt = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="Remove the least valuable ones until the run takes no more (500G). Never latest, backup, the newest "
        "verified one, the best or a pinned one.",
    ),
]
MinFreeOpt = Annotated[
    str | None,
    typer.Option(
        "--min-free", metavar="SIZE|PERCENT", help="The same, until so much of the file system is free (200G, 10%)."
    ),
]


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """Which snapshots are kept."""

    keep_last: KeepLastOpt = None
    keep_epochs: KeepEpochsOpt = None
    keep_best: KeepBestOpt = None
    metric: MetricOpt = None
    mode: ModeOpt = None
    keep_every_steps: KeepStepsOpt = None
    keep_hourly: KeepHourlyOpt = None
    keep_daily: KeepDailyOpt = None
    keep_weekly: KeepWeeklyOpt = None
    keep_within: KeepWithinOpt = None
    keep_tag: KeepTagOpt = None
    max_size: MaxSizeOpt = None
    min_free: MinFreeOpt = None

    def retention(self) -> Retention:
        """The policy that they ask for; an empty one where none was given. Raises UsageError."""
        from ckptctl.store.names import check_tag
        from ckptctl.store.retention import Retention

        return Retention(
            keep_last=_count("--keep-last", self.keep_last),
            keep_within_s=None if self.keep_within is None else parse_duration(self.keep_within),
            keep_hourly=_count("--keep-hourly", self.keep_hourly),
            keep_daily=_count("--keep-daily", self.keep_daily),
            keep_weekly=_count("--keep-weekly", self.keep_weekly),
            keep_every_steps=_number("--keep-every-steps", self.keep_every_steps),
            keep_epochs=_count("--keep-epochs", self.keep_epochs),
            keep_best=_count("--keep-best", self.keep_best),
            best_by=_best_by(self.metric, self.mode),
            keep_tags=tuple(check_tag(text) for text in self.keep_tag or ()),
            max_size_bytes=None if self.max_size is None else parse_size(self.max_size),
            min_free=_min_free(self.min_free),
        )


def _count(option: str, text: str | None) -> int | None:
    """A number of snapshots, or all."""
    if text == _ALL:
        from ckptctl.store.retention import ALL

        return ALL
    return _number(option, text, f" or {_ALL!r}")


def _number(option: str, text: str | None, alternative: str = "") -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise UsageError(f"{option} {text}: expected a number{alternative}.", hint=f"For example {option} 3")
    return int(text)


def _best_by(metric: str | None, mode: str | None) -> BestBy | None:
    from ckptctl.store.best import BestBy, Mode

    if metric is None:
        if mode is not None:
            raise UsageError("--mode says nothing without --metric.", hint="For example --metric val_loss --mode min")
        return None
    if mode is not None and mode not in set(Mode):
        raise UsageError(f"--mode {mode}: not known.", hint="One of min, max.")
    return BestBy.of(metric, Mode(mode) if mode else None)


def _min_free(text: str | None) -> MinFree | None:
    from ckptctl.store.retention import MinFree

    if text is None:
        return None
    if not text.endswith("%"):
        return MinFree(size_bytes=parse_size(text))
    try:
        return MinFree(percent=float(text[:-1]))
    except ValueError:
        raise UsageError(f"--min-free {text}: expected a percentage.", hint="For example --min-free 10%") from None
