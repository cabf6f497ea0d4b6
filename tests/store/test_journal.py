from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.files import FileTrouble
from ckptctl.process.identity import ProcessId
from ckptctl.store.journal import (
    Action,
    DamagedEntry,
    JournalEntry,
    MovedFile,
    OpenEntry,
    Phase,
    TreeProcess,
    begin,
    open_entries,
    take_over,
)
from ckptctl.store.owner import Owner
from support.manifests import SNAPSHOT_ID


def entry(owner: Owner, **changes: object) -> JournalEntry:
    made = JournalEntry(
        id=SNAPSHOT_ID,
        action=Action.DUMP,
        phase=Phase.PREPARED,
        owner=owner,
        tree=(TreeProcess(4711, 99), TreeProcess(4800, 100)),
        folder=Path("/store/runs/train", SNAPSHOT_ID),
        staging=Path("/store/staging", SNAPSHOT_ID),
        to_end=True,
        stopped_before=(4800,),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def dead(owner: Owner) -> Owner:
    process = subprocess.Popen(["true"])
    process.wait()
    return dataclasses.replace(owner, pid=process.pid)


def test_what_is_written_down_is_found(tmp_path: Path, owner: Owner) -> None:
    folder = tmp_path / "state" / "journal"
    assert open_entries(folder, owner) == ()
    written = entry(owner)
    record = begin(folder, written)
    assert open_entries(folder, owner) == (OpenEntry(folder / f"{SNAPSHOT_ID}.json", written, abandoned=False),)
    assert record.entry.tree[0].identity == ProcessId(4711, 99)
    assert (folder / f"{SNAPSHOT_ID}.json").stat().st_mode & 0o777 == 0o600
    record.close()
    record.close()
    assert open_entries(folder, owner) == ()


def test_each_phase_is_written_down(tmp_path: Path, owner: Owner) -> None:
    record = begin(tmp_path, entry(owner))
    moved = (MovedFile(Path("/log\udcff"), 200, 100, Path("/snapshot/tails/log")),)
    record.advance(Phase.FREEZING)
    record.advance(Phase.FROZEN, tree=(TreeProcess(4711, 99),))
    record.advance(Phase.MOVING_FILES, moved=moved)
    record.advance(Phase.ENDING)
    expected = entry(owner, phase=Phase.ENDING, tree=(TreeProcess(4711, 99),), moved=moved)
    assert record.entry == expected
    (found,) = open_entries(tmp_path, owner)
    assert isinstance(found, OpenEntry)
    assert found.entry == expected


def test_what_its_owner_left_behind_is_abandoned(tmp_path: Path, owner: Owner, dead: Owner) -> None:
    begin(tmp_path, entry(dead))
    (found,) = open_entries(tmp_path, owner)
    assert isinstance(found, OpenEntry)
    assert found.abandoned
    record = take_over(found, owner)
    (again,) = open_entries(tmp_path, owner)
    assert isinstance(again, OpenEntry)
    assert not again.abandoned
    assert again.entry == record.entry == entry(dead, recoverer=owner), "who began it is not forgotten"


def test_what_a_recovery_left_behind_is_abandoned_again(tmp_path: Path, owner: Owner, dead: Owner) -> None:
    begin(tmp_path, entry(dead, recoverer=dead))
    (found,) = open_entries(tmp_path, owner)
    assert isinstance(found, OpenEntry)
    assert found.abandoned


def test_what_cannot_be_seen_from_here_is_not_abandoned(tmp_path: Path, owner: Owner) -> None:
    begin(tmp_path, entry(dataclasses.replace(owner, pid_namespace="pid:[1]", pid=4194304)))
    (found,) = open_entries(tmp_path, owner)
    assert isinstance(found, OpenEntry)
    assert not found.abandoned


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda text: "", "no JSON"),
        (lambda text: text[:50], "no JSON"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "has the version 2, not 1"),
        (lambda text: text.replace("4711", "-1"), r"tree[0].pid: expected a number from 1 to 4194304"),
        (lambda text: text.replace('"prepared"', '"dancing"'), "phase: expected one of prepared, moving"),
        (lambda text: text.replace(f'"id": "{SNAPSHOT_ID}"', '"id": "../x"'), "'../x' is not an id"),
    ],
)
def test_a_damaged_file_is_reported_beside_the_others(
    tmp_path: Path, owner: Owner, harm: Callable[[str], str], problem: str
) -> None:
    begin(tmp_path, entry(owner))
    begin(tmp_path, entry(owner, id="20261120T193000Z-0000"))
    damaged = tmp_path / f"{SNAPSHOT_ID}.json"
    damaged.write_text(harm(damaged.read_text()))
    sound, broken = open_entries(tmp_path, owner)
    assert isinstance(sound, OpenEntry)
    assert isinstance(broken, DamagedEntry)
    assert broken.path == damaged
    assert problem in broken.problem


def test_half_written_files_are_passed_over(tmp_path: Path, owner: Owner) -> None:
    (tmp_path / f".{SNAPSHOT_ID}.json.0000").write_text("{")
    assert open_entries(tmp_path, owner) == ()


def test_a_journal_that_cannot_be_written_is_trouble(tmp_path: Path, owner: Owner) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(FileTrouble):
        begin(tmp_path / "journal", entry(owner))
