from __future__ import annotations

from collections.abc import Callable

import pytest

from ckptctl.files import FileTrouble
from ckptctl.store import links
from ckptctl.store.catalog import LastSnapshot, empty_trash, list_ids, list_runs, list_snapshots, remove
from ckptctl.store.layout import Store
from support.manifests import SNAPSHOT_ID


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert list_snapshots(store) == ()
    assert list_snapshots(store, "none") == ()


def test_snapshots_are_listed_oldest_first_over_all_runs(store: Store, add: Callable[..., str]) -> None:
    made = [add("b", 1), add("a", 2), add("b", 3)]
    links.advance(store.run("b"), made[0])
    links.advance(store.run("b"), made[2])
    entries = list_snapshots(store)
    assert [(entry.run, entry.id) for entry in entries] == list(zip("bab", made, strict=True))
    assert [(entry.is_latest, entry.is_backup) for entry in entries] == [(False, True), (False, False), (True, False)]
    assert [entry.id for entry in list_snapshots(store, "a")] == [made[1]]


def test_what_cannot_be_read_is_listed_with_its_reason(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    first, second, third = (add("train", number) for number in (1, 2, 3))
    run.snapshot(first).manifest.write_text("{")
    run.snapshot(second).manifest.unlink()
    run.snapshot(third).path.rename(run.snapshot(SNAPSHOT_ID).path)
    problems = [entry.problem or "" for entry in list_snapshots(store)]
    assert [entry.manifest for entry in list_snapshots(store)] == [None, None, None]
    assert "no JSON" in problems[0] or "no JSON" in problems[1]
    assert sum("No such file" in problem for problem in problems) == 1
    assert sum(f"Its manifest is that of {third}." == problem for problem in problems) == 1


def test_only_what_is_a_snapshot_is_listed(store: Store, add: Callable[..., str]) -> None:
    made = add("train", 1)
    run = store.run("train")
    (run.path / "notes").mkdir()
    (run.path / ".hidden").mkdir()
    (run.path / "20261120T193000Z-beef").symlink_to(made)
    (run.path / "20261120T193000Z-cafe").touch()
    (store.runs / ".hidden").mkdir()
    (store.runs / "link").symlink_to("train")
    assert list_ids(run) == (made,)
    assert list_runs(store) == (run,)


def test_removing_repairs_the_links(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    made = [add("train", number) for number in (1, 2, 3)]
    for name in made:
        links.advance(run, name)
    remove(store, "train", made[2])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (made[1], made[0])
    remove(store, "train", made[0])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (made[1], None)
    assert list_ids(run) == (made[1],)
    assert list(store.trash.iterdir()) == []


def test_the_last_sound_snapshot_takes_force(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    damaged, last = add("train", 1), add("train", 2)
    run.snapshot(damaged).manifest.write_text("{")
    links.advance(run, last)
    with pytest.raises(LastSnapshot, match=last):
        remove(store, "train", last)
    assert list_ids(run) == (damaged, last)
    remove(store, "train", damaged)
    remove(store, "train", last, force=True)
    assert list_runs(store) == ()


def test_links_never_go_to_what_is_damaged(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    sound, damaged, newest = (add("train", number) for number in (1, 2, 3))
    run.snapshot(damaged).manifest.write_text("{")
    links.advance(run, newest)
    remove(store, "train", newest)
    assert links.target(run, run.latest) == sound


def test_what_is_not_there_cannot_be_removed(store: Store, add: Callable[..., str]) -> None:
    add("train", 1)
    with pytest.raises(FileTrouble, match=SNAPSHOT_ID):
        remove(store, "train", SNAPSHOT_ID)
    with pytest.raises(ValueError, match="not an id"):
        remove(store, "train", "..")


def test_what_a_crash_left_in_the_trash_goes(store: Store, add: Callable[..., str]) -> None:
    made = add("train", 1)
    store.run("train").snapshot(made).path.rename(store.trash / f"{made}.0000")
    empty_trash(store)
    assert list(store.trash.iterdir()) == []
