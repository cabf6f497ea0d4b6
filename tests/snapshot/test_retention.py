"""Forgetting and pruning on real folders: locks, crashes at every change, and what is never touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from ckptctl.app import opened
from ckptctl.events import Silence
from ckptctl.snapshot.retention import apply_retention
from ckptctl.snapshot.services import Services
from ckptctl.store import journal, links
from ckptctl.store.best import BestBy
from ckptctl.store.catalog import list_ids, list_snapshots
from ckptctl.store.integrity import verify_structure
from ckptctl.store.journal import Action, JournalEntry, Phase
from ckptctl.store.layout import Store, create_store
from ckptctl.store.locks import Intent, run_lock
from ckptctl.store.manifest import Progress
from ckptctl.store.owner import Owner, this_owner
from ckptctl.store.retention import Retention
from support import CommandLine
from support.manifests import put_snapshot
from support.tmpfs import fill, tmpfs, use_up_inodes

START: Final = datetime(2026, 11, 20, 19, tzinfo=UTC)
_CUT: Final = Path(__file__).parents[1] / "support" / "cut_at_change.py"

Locked = Callable[[Intent], AbstractContextManager[None]]


@pytest.fixture
def store(ckptctl: CommandLine) -> Store:
    return create_store(ckptctl.store)


@pytest.fixture
def services(ckptctl: CommandLine) -> Iterator[Services]:
    """Those of the real application, with the test's folders."""
    with ExitStack() as stack:
        app = stack.enter_context(opened({"store": ckptctl.store, "state": ckptctl.state}, Silence()))
        yield app.services


@pytest.fixture
def owner() -> Owner:
    return this_owner("ckptctl dump", START)


def add(store: Store, number: int, run: str = "gpt", **changes: Any) -> str:
    created = START + timedelta(minutes=10 * number)
    snapshot_id = f"{created:%Y%m%dT%H%M%SZ}-s{number:06d}-{number:04x}"
    store.run(run).path.mkdir(mode=0o700, exist_ok=True)
    changes = {"progress": Progress(number), "tags": (), "ended": False, **changes}
    folder = store.run(run).snapshot(snapshot_id)
    put_snapshot(
        folder, {"pages-1.img": b"x" * 20_000, "core-1.img": b"c"}, id=snapshot_id, run=run, created=created, **changes
    )
    links.advance(store.run(run), snapshot_id)
    return snapshot_id


@pytest.fixture
def six(store: Store) -> list[str]:
    return [add(store, number) for number in range(6)]


@contextmanager
def holding(store: Store, intent: Intent, owner: Owner) -> Iterator[None]:
    from ckptctl.interrupt import Never

    with run_lock(store, "gpt", intent, owner, wait_s=0, interrupt=Never()):
        yield


def beside(store: Store, snapshot_id: str, kind: str, *files: str) -> Path:
    folder = store.run("gpt").snapshot(snapshot_id).beside(kind)
    folder.mkdir(mode=0o700)
    for name in files:
        (folder / name).write_bytes(b"data" * 100)
    return folder


def assert_whole(store: Store) -> None:
    """Everything that is listed is sound, and the links name the newest of it."""
    for entry in list_snapshots(store):
        assert entry.problem is None
        assert verify_structure(entry.folder) == ()


# --- what apply_retention does for a supervisor


def test_only_what_is_kept_takes_space_afterwards(store: Store, six: list[str], services: Services) -> None:
    beside(store, six[0], "logs", "restore.log")
    done = apply_retention(store, "gpt", Retention(keep_last=3), services)
    assert list_ids(store.run("gpt")) == tuple(six[3:])
    assert done.removed == tuple(six[:3])
    assert done.problems == ()
    assert list(store.trash.iterdir()) == []
    assert not store.run("gpt").snapshot(six[0]).beside("logs").exists()
    run = store.run("gpt")
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (six[5], six[4])


def test_the_last_three_are_there_after_every_snapshot(store: Store, services: Services) -> None:
    made: list[str] = []
    for number in range(10):
        made.append(add(store, number))
        apply_retention(store, "gpt", Retention(keep_last=3), services)
        assert list_ids(store.run("gpt")) == tuple(made[-3:])


def test_best_is_that_of_all_that_ever_were(store: Store, services: Services) -> None:
    """A snapshot that is the best now stays when it is neither latest nor backup any more."""
    run = store.run("gpt")
    policy = Retention(keep_last=2, keep_best=1, best_by=BestBy.of("val_loss"))
    made = []
    for number, loss in enumerate([0.9, 0.3, 0.5, 0.7, 0.2, 0.6, 0.8]):
        made.append(add(store, number, progress=Progress(number, metrics={"val_loss": loss})))
        apply_retention(store, "gpt", policy, services)
        wanted = made[4] if number >= 4 else made[1] if number >= 1 else made[0]
        assert links.target(run, run.best) == wanted
    assert list_ids(run) == (made[4], *made[5:])


def test_a_metric_that_is_not_there_yet_keeps_nothing(store: Store, six: list[str], services: Services) -> None:
    policy = Retention(keep_last=2, keep_best=1, best_by=BestBy.of("val_loss"))
    assert apply_retention(store, "gpt", policy, services).removed == tuple(six[:4])
    assert not store.run("gpt").best.is_symlink()


def test_an_empty_policy_keeps_everything(store: Store, six: list[str], services: Services) -> None:
    assert apply_retention(store, "gpt", Retention(), services).removed == ()
    assert list_ids(store.run("gpt")) == tuple(six)


@pytest.mark.parametrize("intent", [Intent.READ, Intent.APPEND])
def test_nothing_goes_while_somebody_restores_or_dumps(
    store: Store, six: list[str], services: Services, owner: Owner, intent: Intent
) -> None:
    with holding(store, intent, owner):
        done = apply_retention(store, "gpt", Retention(keep_last=1), services)
    assert done.removed == ()
    assert len(done.problems) == 1
    assert " is in use by process" in done.problems[0]
    assert list_ids(store.run("gpt")) == tuple(six)


def test_one_that_cannot_be_removed_does_not_save_the_others(store: Store, six: list[str], services: Services) -> None:
    stuck = store.run("gpt").snapshot(six[1]).path
    if subprocess.run(["mount", "--bind", stuck, stuck], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no right to mount")
    try:
        done = apply_retention(store, "gpt", Retention(keep_last=2), services)
    finally:
        subprocess.run(["umount", stuck], check=True)
    assert done.removed == (six[0], six[2], six[3])
    assert len(done.problems) == 1
    assert six[1] in done.problems[0]
    assert list_ids(store.run("gpt")) == (six[1], six[4], six[5])


def test_what_a_recovery_needs_stays(store: Store, six: list[str], services: Services) -> None:
    entry = JournalEntry(
        id=six[0],
        action=Action.RESTORE,
        phase=Phase.RESTORING,
        owner=services.owner,
        tree=(),
        folder=store.run("gpt").snapshot(six[0]).path,
    )
    record = journal.begin(services.host_state.journal, entry)
    assert apply_retention(store, "gpt", Retention(keep_last=1), services).removed == tuple(six[1:4])
    record.close()
    assert apply_retention(store, "gpt", Retention(keep_last=1), services).removed == (six[0],)


def test_a_snapshot_with_a_missing_image_does_not_count(store: Store, six: list[str], services: Services) -> None:
    (store.run("gpt").snapshot(six[3]).images / "pages-1.img").unlink()
    done = apply_retention(store, "gpt", Retention(keep_last=3), services)
    assert list_ids(store.run("gpt")) == tuple(six[2:])
    assert done.removed == tuple(six[:2])


# --- the commands


def test_free_space_counts_what_lies_in_the_trash(ckptctl: CommandLine, store: Store, six: list[str]) -> None:
    usage = os.statvfs(store.path)
    free = usage.f_bavail * usage.f_frsize
    ckptctl("forget", "--keep-last", "4").check()
    # What is in the trash is 40 KiB; more than is free by far cannot be met.
    refused = ckptctl("forget", "--min-free", str(free * 2)).check(3)
    assert "cannot be met" in refused.stdout
    assert list_ids(store.run("gpt")) == tuple(six[4:])


def cut(ckptctl: CommandLine, number: int, *words: str) -> bool:
    """Run ckptctl, killed before its change `number`; whether it was."""
    done = subprocess.run(
        [sys.executable, _CUT, str(number), *words], env=ckptctl.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL), done
    return done.returncode != 0


FORGET: Final = ("forget", "--keep-last", "2", "--keep-best", "1", "--metric", "val_loss", "--prune")


def test_a_crash_at_any_change_leaves_whole_snapshots_and_the_next_one_finishes(
    ckptctl: CommandLine, store: Store
) -> None:
    losses = [0.9, 0.1, 0.8, 0.7, 0.6, 0.5]
    number = 0
    while True:
        number += 1
        made = [
            add(store, count, progress=Progress(count, metrics={"val_loss": loss})) for count, loss in enumerate(losses)
        ]
        beside(store, made[0], "logs", "restore.log")
        wanted = (made[1], made[4], made[5])
        if not cut(ckptctl, number, *FORGET):
            break
        assert_whole(store)
        left = list_ids(store.run("gpt"))
        assert set(wanted) <= set(left)
        run = store.run("gpt")
        assert (links.target(run, run.latest), links.target(run, run.backup)) == (made[5], made[4])
        ckptctl(*FORGET).check()
        assert list_ids(run) == wanted
        assert links.target(run, run.best) == made[1]
        assert [path for folder in (store.trash, store.staging) for path in folder.iterdir()] == []
        assert not store.run("gpt").snapshot(made[0]).beside("logs").exists()
        for path in sorted(store.runs.iterdir()):
            subprocess.run(["rm", "-rf", path], check=True)
    assert number > 20, "the moments to be killed at were not counted"


def test_a_restore_in_the_trash_is_a_rename_back(ckptctl: CommandLine, store: Store, six: list[str]) -> None:
    ckptctl("pin", six[0], "--reason", "the paper").check()
    ckptctl("unpin", six[0]).check()
    ckptctl("tag", six[0], "--add", "before").check()
    ckptctl("forget", "--keep-last", "3").check()
    (rubbish,) = (path for path in store.trash.iterdir() if path.name.startswith(six[0]))
    rubbish.rename(store.run("gpt").snapshot(six[0]).path)
    ckptctl("verify", "tag:before", "--read-data").check()


# --- prune


def test_prune_takes_what_nobody_needs_and_leaves_what_is_the_users(
    ckptctl: CommandLine, store: Store, six: list[str]
) -> None:
    (store.staging / "20261120T180000Z-dead" / "images").mkdir(parents=True)
    logs, tails = beside(store, six[0], "logs", "a"), beside(store, six[0], "tails", "train.log")
    output, empty = beside(store, six[0], "output", "out"), beside(store, six[1], "output")
    living = [beside(store, six[5], kind, "x") for kind in ("logs", "tails", "output")]
    notes = store.run("gpt").path / "notes.logs"
    notes.mkdir()
    ckptctl("forget", "--keep-last", "2").check()
    plan = ckptctl.json("prune", "--dry-run")["result"]
    assert len(list(store.trash.iterdir())) == 5  # four snapshots and the logs of one
    result = ckptctl.json("prune")["result"]
    assert {one["kind"] for one in result["deleted"]} == {"forgotten", "staging", "output"}
    assert {one["path"] for one in result["deleted"]} == {one["path"] for one in plan["deleted"]}
    assert {one["path"] for one in result["left"]} == {str(tails), str(output)}
    assert result["freed_bytes"] == plan["freed_bytes"] > 4 * 20_000
    assert (list(store.trash.iterdir()), list(store.staging.iterdir())) == ([], [])
    assert [path.exists() for path in (logs, tails, output, empty, *living, notes)] == [
        False, True, True, False, True, True, True, True,
    ]  # fmt: skip
    ckptctl("prune", "--tails").check()
    assert [path.exists() for path in (tails, output, *living)] == [False, True, True, True, True]


def test_prune_leaves_a_staging_folder_that_the_journal_knows(
    ckptctl: CommandLine, store: Store, six: list[str], services: Services
) -> None:
    known, unknown = (store.staging / f"20261120T180000Z-{name}" for name in ("aaaa", "bbbb"))
    for path in (known, unknown):
        path.mkdir()
    entry = JournalEntry(
        id="20261120T180000Z-aaaa",
        action=Action.DUMP,
        phase=Phase.PREPARED,
        owner=services.owner,  # lives as long as this test
        tree=(),
        folder=store.run("gpt").path / "20261120T180000Z-aaaa",
        staging=known,
    )
    record = journal.begin(services.host_state.journal, entry)
    ckptctl("prune").check()
    assert (known.exists(), unknown.exists()) == (True, False)
    record.close()
    ckptctl("prune").check()
    assert not known.exists()


def test_prune_empties_only_the_trash_while_somebody_dumps(
    ckptctl: CommandLine, store: Store, six: list[str], owner: Owner
) -> None:
    staging = store.staging / "20261120T180000Z-aaaa"
    staging.mkdir()
    ckptctl("forget", "--keep-last", "2").check()
    with holding(store, Intent.APPEND, owner):
        ended = ckptctl("prune").check(3)
    assert "Only the trash was looked at" in ended.stdout
    assert list(store.trash.iterdir()) == []
    assert staging.exists()
    ckptctl("prune").check()
    assert not staging.exists()


@pytest.mark.parametrize("lacking", ["bytes", "inodes"])
def test_prune_gives_back_space_on_a_full_disk(ckptctl: CommandLine, lacking: str) -> None:
    with tmpfs(ckptctl.store, "size=8m,nr_inodes=400"):
        store = create_store(ckptctl.store)
        made = [add(store, number) for number in range(4)]
        ckptctl("forget", "--keep-last", "2").check()
        fill(store.path) if lacking == "bytes" else use_up_inodes(store.path)
        ckptctl("prune").check()
        assert list(store.trash.iterdir()) == []
        assert list_ids(store.run("gpt")) == tuple(made[2:])


@pytest.mark.parametrize("fill_up", [fill, use_up_inodes], ids=["bytes", "inodes"])
def test_snapshots_are_removed_on_a_full_disk(
    ckptctl: CommandLine, owner: Owner, fill_up: Callable[[Path], None]
) -> None:
    with tmpfs(ckptctl.store, "size=8m,nr_inodes=400"):
        store = create_store(ckptctl.store)
        made = [add(store, number) for number in range(5)]
        with holding(store, Intent.APPEND, owner):  # as the dumps did
            pass
        fill_up(store.path)
        with pytest.raises(OSError, match="No space"):
            (store.path / "more").write_bytes(b"x")
        ckptctl("forget", "--keep-last", "3").check()
        assert list_ids(store.run("gpt")) == tuple(made[2:])
        ckptctl("rm", "latest").check()
        assert list_ids(store.run("gpt")) == tuple(made[2:4])
        assert store.run("gpt").latest.readlink() == Path(made[3])
        ckptctl("prune").check()
        assert list(store.trash.iterdir()) == []
        assert [path.name for path in store.locks.iterdir() if path.suffix] == []
        assert store.reserve.stat().st_blocks > 0


def test_without_a_reserve_a_full_disk_says_what_helps(ckptctl: CommandLine) -> None:
    with tmpfs(ckptctl.store, "size=8m"):
        store = create_store(ckptctl.store)
        made = [add(store, number) for number in range(2)]
        store.reserve.unlink()
        fill(store.path)
        assert "`ckptctl prune`" in ckptctl("rm", made[0]).check(14).stderr


def test_a_prune_that_was_killed_is_begun_again(ckptctl: CommandLine, store: Store) -> None:
    number = 0
    while True:
        number += 1
        for count in range(3):
            add(store, count)
        (store.staging / "20261120T180000Z-dead").mkdir(exist_ok=True)
        ckptctl("forget", "--keep-last", "1").check()
        if not cut(ckptctl, number, "prune"):
            break
        assert_whole(store)
        ckptctl("prune").check()
        assert [path for folder in (store.trash, store.staging) for path in folder.iterdir()] == []
        for path in sorted(store.runs.iterdir()):
            subprocess.run(["rm", "-rf", path], check=True)
    assert number > 5, "the moments to be killed at were not counted"
