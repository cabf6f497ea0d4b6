"""The example programs are what they say: deterministic, real training, unaware of checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ["--plain", pytest.param("--pause=0", marks=pytest.mark.requires_torch)]


def train(*arguments: str) -> list[str]:
    words: list[str | Path] = [sys.executable, "-W", "ignore", EXAMPLES / "train.py", "--pause=0", *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_deterministic_and_learns(kind: str) -> None:
    lines = train("150", kind)
    assert lines == train("150", kind)
    assert [int(line.split()[0]) for line in lines] == list(range(1, 151))
    losses = [float(line.split()[2]) for line in lines]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert len(set(losses)) == len(losses)


def test_a_program_started_without_io_uring_gets_none() -> None:
    code = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True); print(libc.syscall(425, 4, None), ctypes.get_errno())"
    )
    words: list[str | Path] = [sys.executable, EXAMPLES / "without_io_uring.py", sys.executable, "-c", code]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout == "-1 38\n"  # ENOSYS
