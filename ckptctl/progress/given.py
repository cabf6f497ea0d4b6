"""Progress that a person states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ckptctl.store.manifest import Progress


class CommandLine:
    """Options such as `--step 12000 --metric val_loss=1.83`: the metrics were measured at that step."""

    name: Final = "command line"
    place: Final = "options"

    def __init__(self, step: int | None = None, epoch: int | None = None, metrics: Mapping[str, float] | None = None):
        steps = {} if step is None else dict.fromkeys(metrics or {}, step)
        known = step is not None or epoch is not None or metrics
        self._progress = Progress(step, epoch, dict(metrics or {}), self.name if known else None, steps)

    def read(self) -> Progress:
        """See Source."""
        return self._progress
