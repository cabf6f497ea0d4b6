"""`make test` runs two parts; options of pytest may choose tests of one of them alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "second", "good"), [(0, 0, True), (0, 5, True), (5, 0, True), (5, 5, False), (1, 0, False), (0, 1, False)]
)
def test_a_part_without_a_test_is_no_failure(tmp_path: Path, first: int, second: int, good: bool) -> None:
    pytest_program = tmp_path / "pytest"
    pytest_program.write_text(f'#!/bin/sh\ncase "$*" in *"not quiet"*) exit {first} ;; esac\nexit {second}\n')
    pytest_program.chmod(0o755)
    words = ["make", "-o", "setup-dev", "-o", "criu-if-root", "test", f"pytest={pytest_program}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) == good, done.stderr
