"""What Hugging Face's Trainer writes beside each of its model checkpoints: checkpoint-500/trainer_state.json.

It is as new as the newest model checkpoint; `log_history` has the metrics of each logged step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ckptctl.progress import values
from ckptctl.progress.source import Unreadable, Version, newest, read_whole
from ckptctl.progress.status_file import parse_json
from ckptctl.progress.values import Found
from ckptctl.store.manifest import Progress

_PATTERN: Final = "checkpoint-*/trainer_state.json"
_LARGEST_BYTES: Final = 64 << 20
# How long evaluations took, and what the whole training amounted to, say nothing of how good the model is.
_NO_METRICS: Final = ("_runtime", "_per_second", "total_flos", "_jit_compilation_time", "_preparation_time")


class TrainerState:
    """The one in the trainer's output folder that was written last: numbers come again where work was taken back."""

    name: Final = "trainer_state.json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = f"{folder}/{_PATTERN}"
        self._seen: tuple[Path, Version] | None = None
        self._progress = Progress()

    def read(self) -> Progress:
        """See Source."""
        found = newest(self.folder, _PATTERN)
        if found is None:
            self._seen, self._progress = None, Progress()
        elif found != self._seen:
            self._progress = parse(read_whole(found[0], _LARGEST_BYTES))
            self._seen = found
        return self._progress


def parse(data: bytes) -> Progress:
    """What a trainer_state.json tells. Raises Unreadable."""
    document = parse_json(data)
    history = document.get("log_history", [])
    if not isinstance(history, list):
        raise Unreadable("its log_history is no list")
    progress = Progress(source=TrainerState.name)
    for entry in history:
        if isinstance(entry, dict):
            pairs = ((name, raw) for name, raw in entry.items() if _is_metric(name))
            progress = values.advance(progress, Found(values.whole(entry.get("step")), None, values.metrics(pairs)))
    last = Found(values.whole(document.get("global_step")), values.whole(document.get("epoch")))
    return values.advance(progress, last)


def _is_metric(name: str) -> bool:
    return name not in {"step", "epoch"} and not name.endswith(_NO_METRICS)
