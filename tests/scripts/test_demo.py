"""`make demo` and `make bench` are what a newcomer runs first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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
def test_the_benchmark_measures_every_way_to_save(tmp_path: Path) -> None:
    rows = measured(
        tmp_path, "dump.py", "--sizes=4MiB,8MiB,16MiB", "--contents=zeros", "--only=durable,second,tar-zstd"
    )
    assert [row["way"] for row in rows] == 3 * ["plain", "durable", "second", "tar-zstd"]
    assert all(row[figure] > 0 for row in rows for figure in ("durable_s", "pause_s", "written_bytes", "peak_bytes"))
    plain, durable, *_ = rows[-4:]
    assert durable["from_freeze_s"] < durable["durable_s"]
    assert plain["from_freeze_s"] == plain["durable_s"]
    assert durable["written_bytes"] < plain["written_bytes"]  # zeros cost nothing


@pytest.mark.requires_criu
def test_the_benchmark_measures_restores(tmp_path: Path) -> None:
    rows = measured(tmp_path, "restore.py", "--sizes=8MiB", "--contents=floats", "--only=durable")
    assert [(row["way"], row["cache"]) for row in rows] == [
        ("plain", "cold"),
        ("durable", "cold"),
        ("plain", "warm"),
        ("durable", "warm"),
    ]
    assert all(0 < row["from_criu_s"] <= row["seconds"] for row in rows)


def measured(folder: Path, program: str, *words: str) -> list[dict[str, Any]]:
    """The single measurements of one round; nothing else is left."""
    found = folder / "found.json"
    command: list[str | Path] = [sys.executable, ROOT / "bench" / program, "--rounds=1", *words]
    done = subprocess.run(
        [*command, f"--folder={folder}", f"--json={found}"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == [found]
    return [row for one in json.loads(found.read_text()) for row in one]


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
