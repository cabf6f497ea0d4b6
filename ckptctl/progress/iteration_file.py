"""A file that holds the number of the last step and nothing else.

Such as what Megatron keeps (latest_checkpointed_iteration.txt), and NVIDIA's resiliency extension reads
(--ft-checkpoint-iteration-file).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ckptctl.progress import values
from ckptctl.progress.source import Unreadable, read_whole, version
from ckptctl.store.manifest import Progress

_LARGEST_BYTES: Final = 4096


class IterationFile:
    """One number in a file."""

    name: Final = "iteration file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def read(self) -> Progress:
        """See Source."""
        if version(self.path) is None:
            return Progress()
        text = read_whole(self.path, _LARGEST_BYTES).decode(errors="replace").strip()
        if not text:
            raise Unreadable("it is empty")
        step = values.whole(text)
        if step is None:
            raise Unreadable(f"it holds no number but {text[:40]!a}")
        return Progress(step, source=self.name)
