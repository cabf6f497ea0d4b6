"""The file in which a job reports by itself: `ckptctl.report`, or anything else that can write a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ckptctl.progress import values
from ckptctl.progress.source import Unreadable, Version, read_whole, version
from ckptctl.store.manifest import Progress

_LARGEST_BYTES: Final = 1 << 20


class StatusFile:
    """`{"step": 120, "epoch": 3, "metrics": {"val_loss": {"value": 1.83, "step": 100}}}`; a metric may be a number."""

    name: Final = "status file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)
        self._version: Version | None = None
        self._progress = Progress()

    def read(self) -> Progress:
        """See Source."""
        now = version(self.path)
        if now is None:
            self._version, self._progress = None, Progress()
        elif now != self._version:
            self._progress = parse(read_whole(self.path, _LARGEST_BYTES))
            self._version = now
        return self._progress


def parse(data: bytes) -> Progress:
    """What a status file tells. Raises Unreadable."""
    document = parse_json(data)
    step = values.whole(document.get("step"))
    found, steps = document.get("metrics"), {}
    pairs = []
    for name, one in found.items() if isinstance(found, dict) else ():
        value, measured = (one.get("value"), one.get("step")) if isinstance(one, dict) else (one, step)
        pairs.append((name, value))
        steps[name] = values.whole(measured)
    metrics = values.metrics(pairs)
    known = {name: measured for name in metrics if (measured := steps[name]) is not None}
    return Progress(step, values.whole(document.get("epoch")), metrics, StatusFile.name, known)


def parse_json(data: bytes) -> dict[str, object]:
    """The JSON object in `data`. Raises Unreadable."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON: {str(error)[:100]}") from error
    if not isinstance(document, dict):
        raise Unreadable("it holds no JSON object")
    return document
