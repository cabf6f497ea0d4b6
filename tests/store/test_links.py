from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.store import links
from ckptctl.store.layout import Store


def test_backup_is_what_latest_was(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    ids = [add("train", number) for number in (1, 2, 3)]
    links.advance(run, ids[0])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (ids[0], None)
    links.advance(run, ids[1])
    links.advance(run, ids[2])
    links.advance(run, ids[2])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (ids[2], ids[1])
    assert str(run.latest.readlink()) == ids[2]


def test_a_crash_between_the_two_links_is_no_harm(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    ids = [add("train", number) for number in (1, 2, 3)]
    links.advance(run, ids[0])
    links.advance(run, ids[1])
    # advance(ids[2]) that came only half-way:
    run.backup.unlink()
    run.backup.symlink_to(ids[1])
    assert links.target(run, run.latest) == ids[1]
    links.advance(run, ids[2])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (ids[2], ids[1])


def test_dangling_links_are_repaired(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    ids = [add("train", number) for number in (1, 2, 3)]
    run.latest.symlink_to("20261120T193000Z-0000")
    run.backup.symlink_to("20261120T193000Z-0000")
    links.repair(run, ids)
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (ids[2], ids[1])
    links.repair(run, ids[2:])
    assert (links.target(run, run.latest), links.target(run, run.backup)) == (ids[2], None)
    links.repair(run, [])
    assert not run.latest.is_symlink()


@pytest.mark.parametrize("where", ["/etc", "..", ".", "../other/{id}", "{id}/images", "file", "evil"])
def test_a_link_that_leads_elsewhere_is_not_followed(store: Store, add: Callable[..., str], where: str) -> None:
    run = store.run("train")
    known = add("train", 1)
    add("other", 1)
    (run.path / "file").touch()
    (run.path / "evil").symlink_to(known)
    run.latest.symlink_to(where.format(id=known))
    assert links.target(run, run.latest) is None


def test_an_id_that_is_itself_a_link_is_not_followed(store: Store, tmp_path: Path, add: Callable[..., str]) -> None:
    run = store.run("train")
    add("train", 1)
    (tmp_path / "elsewhere").mkdir()
    (run.path / "20261120T200000Z-beef").symlink_to(tmp_path / "elsewhere")
    run.latest.symlink_to("20261120T200000Z-beef")
    assert links.target(run, run.latest) is None


def test_best_names_a_snapshot_or_nothing(store: Store, add: Callable[..., str]) -> None:
    run = store.run("train")
    ids = [add("train", number) for number in (1, 2)]
    links.set_best(run, ids[0])
    links.set_best(run, ids[0])
    assert (links.target(run, run.best), links.target(run, run.latest)) == (ids[0], None)
    links.set_best(run, ids[1])
    assert str(run.best.readlink()) == ids[1]
    links.set_best(run, None)
    links.set_best(run, None)
    assert not run.best.is_symlink()
