"""A schedule as the words of a command line spell it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from ckptctl.errors import UsageError
from ckptctl.schedule.policy import EveryAuto, EveryEpochs, EverySeconds, EverySteps, GpuStable, Interval, Policy
from ckptctl.store.best import BestBy, Mode
from ckptctl.units import parse_duration, parse_size

_COUNT: Final = re.compile(r"(\d{1,15})\s*([a-z]+)", re.ASCII | re.IGNORECASE)
_STEPS: Final = {"step", "steps"}
_EPOCHS: Final = {"ep", "eps", "epoch", "epochs"}
_LONG_UNITS: Final = {
    "seconds": "s", "second": "s", "secs": "s", "sec": "s", "minutes": "m", "minute": "m", "mins": "m", "min": "m",
    "hours": "h", "hour": "h", "hrs": "h", "hr": "h", "days": "d", "day": "d", "weeks": "w", "week": "w",
}  # fmt: skip
# A century: what is longer is a slip of the keyboard.
_LONGEST_S: Final = 100 * 365 * 86400.0
# Each sample of the window is kept, at one a second.
_LONGEST_WINDOW_S: Final = 600.0


class BadSchedule(UsageError):
    """What is said about when to take snapshots cannot be understood, or contradicts itself."""

    code = "E_SCHEDULE"


@dataclass(frozen=True, slots=True)
class PolicyWords:
    """The options as given; None, False or empty where one was not."""

    every: tuple[str, ...] = ()
    mtbf: str | None = None
    first_after: str | None = None
    at_epoch_end: bool = False
    on_best: tuple[str, ...] = ()
    when_gpu_stable: str | None = None
    min_interval: str | None = None
    max_overhead: str | None = None


def parse_policy(words: PolicyWords) -> Policy:
    """The policy that the options describe. Raises BadSchedule, for options too that would do nothing."""
    mtbf_s = None if words.mtbf is None else _duration(words.mtbf, "--mtbf")
    every = tuple(dict.fromkeys(_with_mtbf(parse_every(text), mtbf_s) for text in words.every))
    if mtbf_s is not None and EveryAuto(mtbf_s) not in every:
        raise BadSchedule(
            "--mtbf has no use without --every auto.", hint="Add --every auto, which derives the interval from it."
        )
    policy = Policy(
        every=every,
        first_after_s=None if words.first_after is None else _duration(words.first_after, "--first-after", least_s=0),
        at_epoch_end=words.at_epoch_end,
        on_best=_one_mode_each(tuple(dict.fromkeys(parse_on_best(text) for text in words.on_best))),
        when_gpu_stable=None if words.when_gpu_stable is None else parse_gpu_stable(words.when_gpu_stable),
        min_interval_s=0.0
        if words.min_interval is None
        else _duration(words.min_interval, "--min-interval", least_s=0),
        max_overhead=None if words.max_overhead is None else parse_overhead(words.max_overhead),
    )
    if not policy.has_triggers:
        _refuse_idle_conditions(words)
    return policy


def parse_every(text: str) -> Interval:
    """`500steps`, `500 steps`, `1epoch`, `2ep`, `30m`, `90 sec`, `1h30m`, `auto`. Raises BadSchedule."""
    stripped = text.strip()
    if stripped.lower() == "auto":
        return EveryAuto()
    counted = _COUNT.fullmatch(stripped)
    unit = counted[2].lower() if counted else ""
    if counted and unit in _STEPS | _EPOCHS:
        count = int(counted[1])
        if count == 0:
            raise BadSchedule(f"--every {text}: that is never.", hint="Write a number above 0: 500steps, 1epoch.")
        return EverySteps(count) if unit in _STEPS else EveryEpochs(count)
    if re.fullmatch(r"\d+(\.\d+)?", stripped, re.ASCII):
        raise BadSchedule(f"--every {text!r} says no unit.", hint=f"Write {stripped}s, or {stripped}steps.")
    return EverySeconds(_duration(stripped, "--every", also="; or 500steps, 1epoch, auto"))


def parse_on_best(text: str) -> BestBy:
    """`val_loss`, `val_loss:min`, `bleu:max`; without a mode the name must tell. Raises BadSchedule."""
    name, colon, mode = (part.strip() for part in text.rpartition(":"))
    if not colon:
        name, mode = mode, ""
    if not name or (colon and mode.lower() not in tuple(Mode)):
        raise BadSchedule(f"--on-best {text!r} is no metric with a mode.", hint=_BEST_HINT)
    try:
        return BestBy.of(name, Mode(mode.lower()) if mode else None)
    except UsageError as error:
        raise BadSchedule(f"--on-best: {error.message}", hint=_BEST_HINT) from error


def parse_gpu_stable(text: str) -> GpuStable:
    """`64MiB/10s/5m`: tolerance, window, limit; the later ones, or with `default` all, may be left out.

    Raises BadSchedule.
    """
    parts = [part.strip() for part in text.split("/")]
    default = GpuStable()
    if parts == ["default"]:
        return default
    if len(parts) > 3 or not all(parts):
        raise BadSchedule(f"--when-gpu-stable {text!r} has not the form 64MiB/10s/5m.", hint=_GPU_HINT)
    try:
        tolerance_bytes = parse_size(parts[0])
    except UsageError as error:
        raise BadSchedule(f"--when-gpu-stable: {error.message}", hint=_GPU_HINT) from error
    window_s = _duration(parts[1], "--when-gpu-stable") if len(parts) > 1 else default.window_s
    limit_s = _duration(parts[2], "--when-gpu-stable") if len(parts) > 2 else max(default.limit_s, 2 * window_s)
    if window_s > _LONGEST_WINDOW_S or limit_s < window_s:
        problem = "a window above 10m" if window_s > _LONGEST_WINDOW_S else "a limit shorter than its window"
        raise BadSchedule(f"--when-gpu-stable {text!r} has {problem}.", hint=_GPU_HINT)
    return GpuStable(tolerance_bytes, window_s, limit_s)


_BEST_HINT: Final = "Write the name as the job reports it, and min or max: val_loss, perplexity:min, my_metric:max."
_GPU_HINT: Final = (
    "Write how much the memory may vary, for how long it is watched, and after how long the snapshot is taken "
    "anyway: 64MiB/10s/5m."
)


def parse_overhead(text: str) -> float:
    """The share that `5%` or `0.5 %` means. Raises BadSchedule."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", text.strip(), re.ASCII)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share < 1:
        raise BadSchedule(
            f"--max-overhead {text!r} is no share of the time.", hint="Write it in percent, below 100: 5%, 0.5%."
        )
    return share


def _with_mtbf(interval: Interval, mtbf_s: float | None) -> Interval:
    return EveryAuto(mtbf_s) if isinstance(interval, EveryAuto) else interval


def _one_mode_each(rules: tuple[BestBy, ...]) -> tuple[BestBy, ...]:
    metrics = [rule.metric for rule in rules]
    twice = next((metric for metric in metrics if metrics.count(metric) > 1), None)
    if twice is not None:
        raise BadSchedule(f"--on-best {twice} is given as min and as max.", hint="Give the one that is better.")
    return rules


def _refuse_idle_conditions(words: PolicyWords) -> None:
    given = next(_given(words), None)
    if given is not None:
        raise BadSchedule(
            f"{given} has no use: no snapshot is ever due.",
            hint="Say when snapshots are due: --every 30m, --at-epoch-end, --on-best val_loss.",
        )


def _given(words: PolicyWords) -> Iterator[str]:
    for option in fields(words):
        if getattr(words, option.name):
            yield "--" + option.name.replace("_", "-")


def _duration(text: str, option: str, *, least_s: float = 0.001, also: str = "") -> float:
    """Seconds, with the long names of units too and blanks around units."""
    compact = re.sub(r"(?<=\d)\s+(?=[a-z])|(?<=[a-z])\s+(?=\d)", "", text.strip(), flags=re.IGNORECASE)
    short = re.sub(r"[a-z]+", lambda match: _LONG_UNITS.get(match[0].lower(), match[0]), compact, flags=re.IGNORECASE)
    try:
        seconds = parse_duration(short)
    except UsageError as error:
        hint = f"Write a number with a unit: 90s, 30m, 1h30m{also}."
        raise BadSchedule(f"{option} {text!r} is not a duration.", hint=hint) from error
    if not least_s <= seconds <= _LONGEST_S:
        problem = "too short" if seconds < least_s else "too long"
        raise BadSchedule(f"{option} {text!r} is {problem}.", hint="Write a duration such as 90s, 30m or 1h30m.")
    return seconds
