from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckptctl.files import FileTrouble
from ckptctl.store import best, labels, links, removal
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.catalog import list_ids, list_runs, list_snapshots
from ckptctl.store.labels import Labels, Pin
from ckptctl.store.layout import Store
from ckptctl.store.manifest import Progress
from ckptctl.store.removal import LastSnapshot, Pinned
from support.manifests import SNAPSHOT_ID


def take_out(store: Store, snapshot_id: str) -> Path:
    rubbish = removal.put_in_trash(store, store.run("train").snapshot(snapshot_id).path)
    removal.settle(store.run("train"), list_snapshots(store, "train"))
    return rubbish


def test_removing_repairs_the_links(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    made = [add("train", number) for number in (1, 2, 3)]
    for name in made:
        links.advance(run, name)
    take_out(store, made[2])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (made[1], made[0])
    take_out(store, made[0])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (made[1], None)
    assert list_ids(run) == (made[1],)


def test_best_goes_to_the_next_best(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    made = [add("train", n, progress=Progress(n, metrics={"acc": acc})) for n, acc in enumerate([0.5, 0.9, 0.7])]
    best.remember(run, BestBy("acc", Mode.MAX))
    removal.settle(run, list_snapshots(store, "train"))
    assert links.target(run, run.best) == made[1]
    take_out(store, made[1])
    assert links.target(run, run.best) == made[2]
    run.best_by.write_text("{")
    removal.settle(run, list_snapshots(store, "train"))
    assert not run.best.is_symlink()


def test_what_is_in_the_trash_is_whole(store: Store, add: Callable[..., str]) -> None:
    made = [add("train", number) for number in (1, 2)]
    labels.write(store.run("train").snapshot(made[0]), Labels(tags=("kept",)))
    before = {path.name: path.stat().st_ino for path in store.run("train").snapshot(made[0]).path.iterdir()}
    rubbish = take_out(store, made[0])
    assert rubbish.parent == store.trash
    assert {path.name: path.stat().st_ino for path in rubbish.iterdir()} == before
    rubbish.rename(store.run("train").snapshot(made[0]).path)
    assert list_snapshots(store)[0].tags == ("kept",)


def test_the_last_sound_snapshot_takes_force(store: Store, add: Callable[..., str]) -> None:
    damaged, last = add("train", 1), add("train", 2)
    store.run("train").snapshot(damaged).manifest.write_text("{")
    with pytest.raises(LastSnapshot, match=last):
        removal.require_removable(store, "train", last)
    removal.require_removable(store, "train", damaged)


def test_a_pinned_snapshot_takes_force(store: Store, add: Callable[..., str]) -> None:
    made = [add("train", number) for number in (1, 2)]
    labels.write(store.run("train").snapshot(made[0]), Labels(Pin(datetime(2026, 11, 21, tzinfo=UTC), "the paper")))
    with pytest.raises(Pinned, match="the paper"):
        removal.require_removable(store, "train", made[0])


def test_a_run_without_snapshots_leaves_nothing_of_its_own(store: Store, add: Callable[..., str]) -> None:
    made = add("train", 1)
    best.remember(store.run("train"), BestBy("loss", Mode.MIN))
    links.advance(store.run("train"), made)
    take_out(store, made)
    assert list_runs(store) == ()


def test_a_run_with_files_of_somebody_else_stays(store: Store, add: Callable[..., str]) -> None:
    made = add("train", 1)
    (store.run("train").path / "output").mkdir()
    take_out(store, made)
    assert [run.name for run in list_runs(store)] == ["train"]


def test_links_never_go_to_what_is_damaged(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    sound, damaged, newest = (add("train", number) for number in (1, 2, 3))
    run.snapshot(damaged).manifest.write_text("{")
    links.advance(run, newest)
    take_out(store, newest)
    assert links.target(run, run.latest) == sound


def test_what_is_not_there_cannot_be_removed(store: Store, add: Callable[..., str]) -> None:
    add("train", 1)
    with pytest.raises(FileTrouble, match=SNAPSHOT_ID):
        take_out(store, SNAPSHOT_ID)


def test_deleting_goes_on_after_what_cannot_be_deleted(store: Store) -> None:
    rubbish = store.trash / "rubbish"
    for name in ("a", "b", "c"):
        (rubbish / name).mkdir(parents=True)
        (rubbish / name / "file").touch()
    mounted = rubbish / "b" / "file"
    if subprocess.run(["mount", "--bind", mounted, mounted], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(FileTrouble, match="rubbish"):
            removal.delete(rubbish)
        assert [path.name for path in rubbish.iterdir()] == ["b"]
    finally:
        subprocess.run(["umount", mounted], check=True)
    removal.delete(rubbish)
    assert not rubbish.exists()
    removal.delete(rubbish)


def test_the_disk_is_measured_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    before = removal.disk_bytes(tmp_path)
    (tmp_path / "deep" / "file").write_bytes(b"x" * (1 << 20))
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(1 << 30)
    assert 1 << 20 <= removal.disk_bytes(tmp_path) - before < 2 << 20
    assert removal.disk_bytes(tmp_path / "missing") == 0
