"""How runs fare, for people: a block of lines for each, with curves; once, or again and again on a terminal."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ckptctl.output import stream, text
from ckptctl.output.stream import on_one_line
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from ckptctl.supervise.overview import RunStatus, StoreStatus

_CLEAR: Final = "\x1b[H\x1b[J"
_HANGING: Final = " " * 9  # below what stands behind the title of a line
_BARS: Final = "▁▂▃▄▅▆▇█"
_CURVE_CHARACTERS: Final = 30
_ALERTS_SHOWN: Final = 3
_AGAIN: Final = "the same command brings it back"


def status_text(store: StoreStatus, now: datetime) -> str:
    """All runs, and the disk that they share; as wide as standard output where that is a terminal."""
    width = stream.columns(sys.stdout)
    blocks = ["\n".join(stream.wrapped(line, width, _HANGING) for line in _run_lines(run, now)) for run in store.runs]
    return "\n\n".join([*(blocks or ["There are no runs."]), stream.wrapped(_disk(store), width)])


def redraw(shown: str) -> bool:
    """Show this alone on the terminal; False if it cannot be written there."""
    return stream.write(sys.stdout, _CLEAR + stream.harmless(shown) + "\n") is None


def sparkline(values: Sequence[float | None], width: int = _CURVE_CHARACTERS) -> str:
    """A curve of at most `width` characters, the newest value at the right; a gap where a value is missing.

    Where there are more values than characters, each character shows the mean of its share.
    """
    shares = _shares([value if value is not None and math.isfinite(value) else None for value in values], width)
    known = [value for value in shares if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = high - low
    middle = (len(_BARS) - 1) // 2
    return "".join(
        " " if value is None else _BARS[middle if span == 0 else round((value - low) / span * (len(_BARS) - 1))]
        for value in shares
    )


def _shares(values: Sequence[float | None], width: int) -> list[float | None]:
    if len(values) <= width:
        return list(values)
    edges = [round(number * len(values) / width) for number in range(width + 1)]
    return [_mean(values[begin:end]) for begin, end in itertools.pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _run_lines(run: RunStatus, now: datetime) -> Iterator[str]:
    yield on_one_line(f"{run.run}: {_standing(run)}")
    for title, line in (
        ("command", " ".join(run.command)),
        ("progress", _progress(run)),
        ("memory", _memory(run)),
        ("snapshot", _snapshot(run, now)),
        ("next", run.next_due),
        ("", run.problem or ""),
    ):
        if line:
            yield on_one_line(f"  {title:<9}{line}")
    for alert in run.alerts[-_ALERTS_SHOWN:]:
        yield on_one_line(f"  ! {text.age(alert.when, now)} ago: {alert.text}")


def _standing(run: RunStatus) -> str:
    pid = f" (pid {run.pid})" if run.pid is not None else ""
    again = f"`ckptctl restore latest --run {run.run}` brings it back" if run.watched else _AGAIN
    where = "" if run.progress.step is None else f", at step {run.progress.step}"
    then = f"that was the third time in a row{where}" if run.given_up else again
    words = {
        "running": f"running{pid}",
        "unattended": f"running{pid}, but nobody looks after it: run the same command again to take it over",
        "elsewhere": f"looked after on {run.host}",
        "saved": f"saved and ended; {again}",
        "stopped": f"stopped; {again}",
        "finished": "finished",
        "died": f"died {_how(run.exit_status)}; {then}",
        "not started": "not started: its command cannot be run",
        "lost": f"killed together with its supervisor; {again}",
        "gone": "ended, and nobody saw how",
        "snapshots": "not under supervision",
    }
    return words[run.standing.value]


def _how(status: int | None) -> str:
    if status is None:
        return "somehow"
    return f"with exit status {status}" if status >= 0 else f"of signal {-status}"


def _progress(run: RunStatus) -> str:
    progress = run.progress
    parts = [f"step {progress.step}"] if progress.step is not None else []
    parts += [f"epoch {progress.epoch}"] if progress.epoch is not None else []
    parts += [f"{name} {value:.6g}" for name, value in sorted(progress.metrics.items())]
    parts += [f"{run.steps_per_s:.3g} steps/s"] if run.steps_per_s else []
    curve = sparkline([sample.loss for sample in run.samples])
    return ", ".join(parts) + (f"  {curve}" if len(curve) > 1 else "")


def _memory(run: RunStatus) -> str:
    if run.memory_bytes is None:
        return ""
    gpu = "" if run.gpu_bytes is None else f", GPU {format_size(run.gpu_bytes)}"
    of_gpu = run.gpu_bytes is not None
    curve = sparkline([sample.gpu_bytes if of_gpu else sample.memory_bytes for sample in run.samples])
    return f"{format_size(run.memory_bytes)}{gpu}" + (f"  {curve}" if len(curve) > 1 else "")


def _snapshot(run: RunStatus, now: datetime) -> str:
    newest = run.newest
    if newest is None:
        return "none yet" if run.snapshots == 0 else "none that is sound"
    step = "" if newest.step is None else f" at step {newest.step}"
    parts = [f"{newest.id}{step}, {text.age(newest.created, now)} ago"]
    if run.last is not None and run.last.id == newest.id:
        parts.append(f"the job stood still for {format_duration(run.last.paused_s)}")
    parts.append(f"{text.counted(run.snapshots, 'snapshot')} in {format_size(run.snapshots_bytes)}")
    return "; ".join(parts)


def _disk(store: StoreStatus) -> str:
    if store.free_bytes is None or store.total_bytes is None:
        return f"store {store.store}"
    return f"store {store.store}: {format_size(store.free_bytes)} of {format_size(store.total_bytes)} free"
