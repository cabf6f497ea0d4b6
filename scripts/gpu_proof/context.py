"""What every part gets: its folder, the rows that it fills, the programs that it saves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from gpu_proof.targets import raw_program, training


@dataclass(frozen=True)
class Context:
    """The folder of a part, where its rows go as they are found, so that a part that is stopped keeps them."""

    work: Path
    gib: tuple[float, ...]

    def row(self, what: str, value: object, proven: bool | None = None) -> None:
        with (self.work / "rows").open("a") as file:
            file.write(json.dumps([what, str(value), proven]) + "\n")


def programs(steps: int) -> list[tuple[str, list[str]]]:
    """The programs that every way of saving is tried on: with no packages, and with PyTorch where it was packed."""
    torch = training(steps)
    return [("plain CUDA", raw_program(0.02, steps)), *([("PyTorch", torch)] if torch else [])]


def criu() -> str:
    """The CRIU that ckptctl takes on this machine."""
    from ckptctl.criu.program import find

    return str(find(os.environ).path)
