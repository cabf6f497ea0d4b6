from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl.errors import CkptctlError, UsageError
from ckptctl.store import best, labels, links
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.labels import Labels
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import Progress
from ckptctl.store.selectors import Ambiguous, NothingMatched, find


@pytest.fixture
def made(store: Store, add: Callable[..., str]) -> list[str]:
    """Four snapshots: 0, 1 and 3 in run `a`, 2 in run `b`; the links of both are as after dumps."""
    ids = []
    for number, run, step, epoch, tags in [
        (1, "a", 100, 1, ("first",)),
        (2, "a", 200, 1, ()),
        (3, "b", 100, 1, ("only-b",)),
        (4, "a", 300, 2, ("first", "good")),
    ]:
        ids.append(add(run, number, progress=Progress(step, epoch), tags=tags))
        links.advance(store.run(run), ids[-1])
    return ids


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("latest", 3),
        ("latest~0", 3),
        ("latest~1", 1),
        ("latest~2", 0),
        ("backup", 1),
        ("a/latest", 3),
        ("b/latest", 2),
        ("a/latest~2", 0),
        ("a/backup", 1),
        ("tag:good", 3),
        ("tag:first", 3),
        ("tag:only-b", 2),
        ("step:200", 1),
        ("a/step:100", 0),
        ("b/step:100", 2),
        ("epoch:2", 3),
        ("a/epoch:1", 1),
    ],
)
def test_a_selector_means(store: Store, made: list[str], selector: str, expected: int) -> None:
    found = find(store, selector)
    assert found.id == made[expected]
    assert found.folder.manifest.is_file()
    assert found.run == "aaba"[expected]
    assert found.by_link == selector.endswith("latest")


def test_an_id_and_its_beginning(store: Store, made: list[str]) -> None:
    for name in made:
        assert find(store, name).id == name
        assert find(store, name[:14]).id == name  # down to the minute that differs
    assert find(store, f"b/{made[2][:4]}").id == made[2]
    assert find(store, "2026", "b").id == made[2]


def test_a_folder(store: Store, made: list[str], snapshot: SnapshotFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(None, str(snapshot.path)).folder == snapshot
    monkeypatch.chdir(snapshot.path.parent)
    assert find(store, "snapshot").folder == snapshot
    monkeypatch.chdir(snapshot.path)
    assert find(store, ".").folder.manifest == snapshot.manifest
    # A folder that is called like a word of a selector does not take it over; with a slash it does.
    snapshot.path.rename(snapshot.path.with_name("latest"))
    monkeypatch.chdir(snapshot.path.parent)
    assert find(store, "latest").id == made[3]
    assert find(store, "./latest").id is None


def test_latest_is_known_by_its_link_and_without_it(store: Store, made: list[str]) -> None:
    run = store.run("a")
    run.latest.unlink()
    run.latest.symlink_to(made[0])
    assert find(store, "a/latest").id == made[0]
    run.latest.unlink()
    assert find(store, "a/latest").id == made[3]


def test_a_damaged_latest_is_found_all_the_same(store: Store, made: list[str]) -> None:
    store.run("a").snapshot(made[3]).manifest.write_text("{")
    assert find(store, "latest").id == made[3]
    assert find(store, "epoch:1", "a").id == made[1]
    with pytest.raises(NothingMatched):
        find(store, "tag:good")


@pytest.mark.parametrize(
    "selector",
    [
        *("", " ", "none", "c/latest", "latest~3", "b/backup", "tag:none", "step:7", "step:x", "step:", "epoch:-1"),
        *("best", "../x", "/", "a/", "a/b/latest", "2027", "/etc", "latest~", "latest~99999999", "\0", "tag:"),
        "a/../b/latest",
    ],
)
def test_nothing_matches(store: Store, made: list[str], selector: str) -> None:
    with pytest.raises(NothingMatched) as caught:
        find(store, selector)
    assert caught.value.hint


@pytest.mark.parametrize("selector", ["step:100", "epoch:1", "2026", "20261120T190"])
def test_several_match(store: Store, made: list[str], selector: str) -> None:
    with pytest.raises(Ambiguous):
        find(store, selector)


def test_nothing_matches_in_an_empty_store_or_without_one(store: Store, tmp_path: Path) -> None:
    for selector in ("latest", "backup", "tag:x", "2026"):
        with pytest.raises(NothingMatched):
            find(store, selector)
    with pytest.raises(NothingMatched, match="holds no snapshot"):
        find(None, str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20) | st.from_regex(r"(a/)?(latest|tag:|step:|2026|~|\.\.|/)+[0-9a-z]{0,3}", fullmatch=True))
def test_any_text_finds_something_in_the_store_or_is_refused(store: Store, selector: str) -> None:
    try:
        found = find(store, selector)
    except CkptctlError:
        return
    assert found.folder.manifest.is_file()


@pytest.fixture
def measured(store: Store, add: Callable[..., str]) -> list[str]:
    """A run with two metrics, one with a single metric whose better values are known, one without any."""
    ids = [
        add("two", number, progress=Progress(number, metrics={"loss": loss, "x": -loss}))
        for number, loss in enumerate([0.5, 0.2, 0.9, 0.2])
    ]
    ids += [
        add("one", 10 + number, progress=Progress(number, metrics={"acc": acc}))
        for number, acc in enumerate([0.1, 0.3])
    ]
    ids.append(add("none", 20, progress=Progress(1)))
    return ids


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("best:loss", 1), ("best:loss:min", 1), ("best:loss:max", 2), ("best:x:min", 2), ("best:x:max", 1),
        ("two/best:loss", 1), ("one/best", 5), ("one/best:acc:min", 4), ("best:acc", 5),
    ],
)  # fmt: skip
def test_best_by_a_metric(store: Store, measured: list[str], selector: str, expected: int) -> None:
    found = find(store, selector)
    assert (found.id, found.by_link) == (measured[expected], False)


def test_best_is_by_the_metric_that_retention_was_told(store: Store, measured: list[str]) -> None:
    with pytest.raises(Ambiguous, match="several metrics: loss, x"):
        find(store, "two/best")
    best.remember(store.run("two"), BestBy("loss", Mode.MAX))
    assert find(store, "two/best").id == measured[2]
    with pytest.raises(Ambiguous, match="one, two"):
        find(store, "best")
    assert find(store, "best", "one").id == measured[5]


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        ("none/best", NothingMatched), ("best:unknown:min", NothingMatched), ("best:x", UsageError),
        ("best:", NothingMatched), ("best:loss:least", NothingMatched), ("none/best:loss", NothingMatched),
    ],
)  # fmt: skip
def test_what_is_not_the_best_of_anything(
    store: Store, measured: list[str], selector: str, error: type[CkptctlError]
) -> None:
    with pytest.raises(error) as caught:
        find(store, selector)
    assert caught.value.hint


def test_tags_are_those_of_now(store: Store, made: list[str]) -> None:
    labels.write(store.run("a").snapshot(made[0]), Labels(tags=("good",)))
    labels.write(store.run("a").snapshot(made[3]), Labels(tags=()))
    assert find(store, "tag:good").id == made[0]
    with pytest.raises(NothingMatched):
        find(store, "tag:first")
