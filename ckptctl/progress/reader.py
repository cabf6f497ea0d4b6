"""Progress from several sources: the first one that knows a thing is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ckptctl.events import Caution, Reporter, Silence
from ckptctl.progress import values
from ckptctl.progress.source import Source, Unreadable
from ckptctl.store.manifest import Progress

_CODE: Final = "W_PROGRESS"


class ProgressReader:
    """Reads the sources again and again. One that cannot be read keeps its last good values; that is said once."""

    def __init__(self, sources: Sequence[Source], reporter: Reporter | None = None) -> None:
        self._sources = tuple(sources)
        self._reporter = reporter or Silence()
        self._last = [Progress() for _ in self._sources]
        self._complained: set[int] = set()

    def read(self) -> Progress:
        """How far the training is now. Never raises: a source in disorder is no disorder of the training."""
        for number, source in enumerate(self._sources):
            try:
                self._last[number] = source.read()
            except Unreadable as error:
                where = f"{source.name} ({source.place})"
                self._complain(number, f"How far the training is cannot be read from the {where}: {error}.")
        return merge(self._last)

    def _complain(self, number: int, text: str) -> None:
        if number not in self._complained:
            self._complained.add(number)
            self._reporter.report(Caution(f"{text} What was known before still counts.", _CODE))


def merge(readings: Sequence[Progress]) -> Progress:
    """Step, epoch and each metric from the first reading that knows it; `source` names those that gave something.

    A metric measured later than the step that came out of it belongs to work that was taken back, and is left out.
    """
    of_step = next((one for one in readings if one.step is not None), Progress())
    of_epoch = next((one for one in readings if one.epoch is not None), Progress())
    step = of_step.step
    metrics: dict[str, float] = {}
    steps: dict[str, int] = {}
    sources: dict[str, None] = {}
    for one in readings:
        known, measured = (one.metrics, one.metric_steps) if step is None else values.not_after(one, step)
        new = known.keys() - metrics.keys()
        metrics |= {name: value for name, value in known.items() if name in new}
        steps |= {name: number for name, number in measured.items() if name in new}
        if one.source is not None and (one is of_step or one is of_epoch or new):
            sources[one.source] = None
    return Progress(step, of_epoch.epoch, metrics, ", ".join(sources) or None, steps)
