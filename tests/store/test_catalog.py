from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ckptctl.store import best, labels, links
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.catalog import list_ids, list_runs, list_snapshots
from ckptctl.store.labels import Labels, Pin
from ckptctl.store.layout import Store
from ckptctl.store.manifest import Progress
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


def test_tags_are_those_of_the_dump_until_they_are_changed(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    first, second = add("train", 1, tags=("dumped",)), add("train", 2, tags=("dumped",))
    labels.write(run.snapshot(second), Labels(Pin(datetime(2026, 11, 21, tzinfo=UTC), "the paper"), ()))
    one, two = list_snapshots(store)
    assert (one.id, one.tags, one.pin) == (first, ("dumped",), None)
    assert (two.tags, two.pin and two.pin.reason) == ((), "the paper")
    run.snapshot(second).labels.write_text("{")
    one, two = list_snapshots(store)
    assert (two.labels, two.tags, two.manifest is not None) == (None, ("dumped",), True)


def test_the_best_is_marked_once_the_metric_is_known(store: Store, add: Callable[..., str]) -> None:
    losses = [3.0, float("nan"), 1.0, float("-inf"), 1.0, 2.0]
    made = [add("train", n, progress=Progress(n, metrics={"val_loss": loss})) for n, loss in enumerate(losses)]
    assert not any(entry.is_best for entry in list_snapshots(store))
    best.remember(store.run("train"), BestBy("val_loss", Mode.MIN))
    assert [entry.id for entry in list_snapshots(store) if entry.is_best] == [made[2]]
    best.remember(store.run("train"), BestBy("val_loss", Mode.MAX))
    assert [entry.id for entry in list_snapshots(store) if entry.is_best] == [made[0]]
    best.remember(store.run("train"), BestBy("accuracy", Mode.MAX))
    assert not any(entry.is_best for entry in list_snapshots(store))


def test_a_metric_that_was_measured_after_the_step_is_not_that_of_the_snapshot(
    store: Store, add: Callable[..., str]
) -> None:
    early = add("train", 1, progress=Progress(10, metrics={"loss": 1.0}, metric_steps={"loss": 20}))
    add("train", 2, progress=Progress(20, metrics={"loss": 2.0}, metric_steps={"loss": 20}))
    best.remember(store.run("train"), BestBy("loss", Mode.MIN))
    assert [entry.id for entry in list_snapshots(store) if entry.is_best] != [early]
