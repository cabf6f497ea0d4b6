"""`make demo` and `make bench` are what a newcomer runs first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.requires_criu
def test_the_demo_ends_with_equal_logs_and_leaves_nothing() -> None:
    done = subprocess.run([ROOT / "scripts" / "demo"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The logs are equal" in done.stdout
    assert done.stderr == ""
    assert not (ROOT / ".demo").exists()


@pytest.mark.requires_criu
def test_the_benchmark_measures_both(tmp_path: Path) -> None:
    words: list[str | Path] = [
        sys.executable,
        ROOT / "bench" / "dump.py",
        "--sizes=16MiB",
        "--rounds=2",
        f"--folder={tmp_path}",
    ]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[-1].split()
    assert row[:2] == ["16.0", "MiB"]
    assert all(float(cell) > 0 for cell in row[2:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.requires_criu
def test_what_run_costs_is_measured_on_every_side(tmp_path: Path) -> None:
    words: list[str | Path] = [sys.executable, ROOT / "bench" / "overhead.py", "--plain", "--seconds=3", "--rounds=1"]
    words += ["--intervals=1s", "--state=8MiB", f"--folder={tmp_path}"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    without, none, often = (line.split() for line in done.stdout.splitlines()[-3:])
    assert (without[:2], none[:2], often[:2]) == (["without", "ckptctl"], ["no", "snapshot"], ["every", "1s"])
    assert all(float(row[2]) > 0 for row in (without, none, often))
    assert float(without[3]) == 1
    assert int(none[6]) == 0 < int(often[6])
    # Processor time of ckptctl, and of criu.
    assert 0 < float(often[7]) <= 1000
    assert 0 < float(often[9]) <= 1000
    assert list(tmp_path.iterdir()) == []


def test_no_command_loads_packages_that_it_has_no_use_for() -> None:
    words: list[str | Path] = [sys.executable, ROOT / "bench" / "startup.py", "--rounds=1"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
