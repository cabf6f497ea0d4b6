"""The proof for real hardware runs on the fake GPU too, and can say no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.fake_gpu import Card, FakeGpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]
PROOF = Path(__file__).parents[2] / "scripts" / "gpu-proof"


def prove(machine: FakeGpu, criu: Path, result: Path, *parts: str) -> tuple[int, dict[str, Any]]:
    machine.set_cards(Card(total_bytes=256 << 20))
    done = subprocess.run(
        [sys.executable, PROOF, "--only", ",".join(parts), "--gib", "0.01,0.02", "--json", result],
        env={**os.environ, **machine.environment, "CKPTCTL_CRIU": str(criu)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(result.read_text())["parts"]


def test_everything_is_proven_where_everything_works(machine: FakeGpu, criu: Path, tmp_path: Path) -> None:
    parts = ("facts", "states", "timings", "images", "command_line", "given_up", "rollback", "sizes", "parallel")
    status, found = prove(machine, criu, tmp_path / "proof.json", *parts)
    rows = [row for part in found.values() for row in part["rows"]]
    assert not [row for row in rows if row[2] is False]
    assert status == 0
    assert tuple(found) == parts
    same_log = next(row for row in found["images"]["rows"] if "log equals" in row[0])
    assert same_log[1:] == ["250 lines", True]
    assert sum("log equals" in row[0] and row[2] for row in found["command_line"]["rows"]) == 1
    measured = [row[0] for row in found["sizes"]["rows"] if "GiB/s" in row[1]]
    assert measured == [f"{size} GiB: {action}" for size in ("0.01", "0.02") for action in ("checkpoint", "restore")]


def test_what_a_machine_refuses_is_recorded_and_the_other_parts_go_on(
    machine: FakeGpu, criu: Path, tmp_path: Path
) -> None:
    machine.set_faults("checkpoint 801")
    status, found = prove(machine, criu, tmp_path / "proof.json", "rollback", "facts")
    assert status == 3
    assert any("NOT_SUPPORTED" in row[1] and row[2] is False for row in found["rollback"]["rows"])
    assert not any(row[2] is False for row in found["facts"]["rows"])
