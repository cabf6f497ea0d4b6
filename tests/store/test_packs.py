"""Containers that snapshots of a run share: whatever is removed in whatever order, what stays is whole."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl.images import reclaim as holes
from ckptctl.images.container import FILE_NAME
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.reader import Reader
from ckptctl.images.writer import Writer
from ckptctl.interrupt import Never
from ckptctl.snapshot.former import newest_with_container
from ckptctl.snapshot.stream import record_of
from ckptctl.store import integrity, labels, manifest_json, packs, removal
from ckptctl.store.catalog import Entry, list_snapshots
from ckptctl.store.labels import Labels, Verification
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import Images
from support.manifests import make_manifest

RUN = "train"
IMAGE = "pages-1.img"
PART = 512 << 10
PARTS = 6

Contents = dict[str, bytes]


def put(store: Store, minute: int, contents: bytes, compression: Compression = Compression.OFF) -> str:
    """A snapshot with this memory, which shares what the one before has."""
    created = datetime(2026, 11, 20, 19, minute, tzinfo=UTC)
    name = f"{created:%Y%m%dT%H%M%SZ}-{minute:04x}"
    run = store.run(RUN)
    former = newest_with_container(run) if run.path.exists() else None
    folder = run.snapshot(name)
    folder.images.mkdir(mode=0o700, parents=True)
    known = None
    if former is not None and former.manifest is not None and former.manifest.images.container is not None:
        known = Known.of(former.folder.images, folder.images, former.manifest.images.container.digest)
    writer = Writer(folder.images / FILE_NAME, compression, known)
    writer.add_image(IMAGE, [contents], memoryview(bytearray(2 << 20)))
    sealed = writer.seal()
    writer.close()
    if known is not None:
        known.close()
    images = Images("blake3", (), record_of(folder.images, sealed, compression))
    manifest_json.write(folder.manifest, make_manifest(id=name, run=RUN, created=created, images=images))
    return name


def changed(contents: bytes, part: int, seed: int) -> bytes:
    """The same memory with one part of it new."""
    new = random.Random(seed).randbytes(PART)
    return contents[: part * PART] + new + contents[(part + 1) * PART :]


@pytest.fixture
def series(store: Store) -> Contents:
    """Four snapshots, each with two parts of six that the one before did not have."""
    contents = random.Random(0).randbytes(PARTS * PART)
    made = {put(store, 0, contents): contents}
    for number in range(1, 4):
        contents = changed(changed(contents, number - 1, number), number + 1, 10 + number)
        made[put(store, number, contents)] = contents
    return made


def read(folder: SnapshotFolder) -> bytes:
    with Reader(folder.images / FILE_NAME) as found:
        return b"".join(map(bytes, found.pieces(found.index.images[0])))


def assert_whole(entries: Sequence[Entry], expected: Contents) -> None:
    for entry in entries:
        assert entry.manifest is not None
        assert [one for one in integrity.verify_structure(entry.folder) if one.fatal] == []
        assert integrity.verify_data(entry.folder, entry.manifest, Never(), lambda _done, _total: None) == ()
        assert read(entry.folder) == expected[entry.id]


def remove(store: Store, snapshot_id: str) -> None:
    removal.delete(removal.put_in_trash(store, store.run(RUN).snapshot(snapshot_id).path))


def by_inode(store: Store) -> dict[int, int]:
    """What each file with memory takes on the disk."""
    return {path.stat().st_ino: path.stat().st_blocks * 512 for path in store.path.rglob("*.blocks")}


def sizes(store: Store) -> int:
    return sum(by_inode(store).values())


def test_only_what_is_new_is_stored(store: Store, series: Contents) -> None:
    records = [entry.manifest.images.container for entry in list_snapshots(store, RUN) if entry.manifest]
    own = [record.size_bytes for record in records if record]
    assert own[0] > PARTS * PART
    assert all(2 * PART <= size <= 3.5 * PART for size in own[1:])
    assert [len(record.packs) for record in records if record] == [0, 1, 2, 3]
    assert sum(removal.disk_bytes(entry.folder.path) for entry in list_snapshots(store, RUN)) == pytest.approx(
        sizes(store), rel=0.1
    )
    assert_whole(list_snapshots(store, RUN), series)


def test_any_order_of_removal_leaves_the_others_whole(store: Store, series: Contents, tmp_path: Path) -> None:
    for number, order in enumerate(itertools.permutations(series, 3)):
        copy = Store(tmp_path / f"copy-{number}")
        shutil.copytree(store.path, copy.path, symlinks=True, copy_function=os.link)
        unlink_all(copy)
        for snapshot_id in order:
            remove(copy, snapshot_id)
            packs.reclaim(list_snapshots(copy, RUN))
            assert_whole(list_snapshots(copy, RUN), series)
        (left,) = list_snapshots(copy, RUN)
        assert left.manifest is not None
        # All that is dead is given back, but what shares a page with something that is not.
        assert sizes(copy) < (PARTS + 1.5) * PART
        shutil.rmtree(copy.path)


def unlink_all(store: Store) -> None:
    """Give the copy files of its own, linked among each other as the originals are."""
    fresh: dict[int, Path] = {}
    for path in sorted(store.runs.rglob("*.blocks")):
        inode = path.stat().st_ino
        path.unlink() if inode in fresh else None
        if inode in fresh:
            os.link(fresh[inode], path)
        else:
            copy = path.with_suffix(".copy")
            shutil.copyfile(path, copy)
            copy.replace(path)
            fresh[inode] = path


def test_what_is_dead_is_given_back_once(store: Store, series: Contents) -> None:
    first, *others = series
    assert packs.reclaim(list_snapshots(store, RUN)) == 0, "everything has its own snapshot"
    before = sizes(store)
    remove(store, first)
    assert sizes(store) == before
    freed = packs.reclaim(list_snapshots(store, RUN))
    assert freed == before - sizes(store)
    assert freed >= PART, "of the first, two parts are in no other"
    assert packs.reclaim(list_snapshots(store, RUN)) == 0
    assert_whole(list_snapshots(store, RUN), series)
    name = put(store, 9, series[others[-1]])
    assert_whole(list_snapshots(store, RUN), {**series, name: series[others[-1]]})


def in_trash(store: Store, folder: Path) -> None:
    removal.put_in_trash(store, folder)


def damage_the_index(_store: Store, folder: Path) -> None:
    path = folder / "images" / FILE_NAME
    with path.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"x" * 20)


def damage_the_manifest(_store: Store, folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def link_elsewhere(store: Store, folder: Path) -> None:
    for path in (folder / "images").glob("pages-*.blocks"):
        os.link(path, store.path / path.name)


@pytest.mark.parametrize("doubt", [in_trash, damage_the_index, damage_the_manifest, link_elsewhere])
def test_in_doubt_nothing_is_given_back(doubt: Callable[[Store, Path], None], store: Store, series: Contents) -> None:
    first, second, *_ = series
    remove(store, first)
    before = by_inode(store)
    doubt(store, store.run(RUN).snapshot(second).path)
    assert packs.reclaim(list_snapshots(store, RUN)) == 0
    assert by_inode(store) == before


def test_what_a_dump_is_about_to_share_is_left(store: Store, series: Contents, tmp_path: Path) -> None:
    first, *_, last = series
    remove(store, first)
    entry = list_snapshots(store, RUN)[-1]
    assert entry.id == last
    assert entry.manifest is not None
    assert entry.manifest.images.container is not None
    target = store.staging / "images"
    target.mkdir(parents=True)
    with Known.of(entry.folder.images, target, entry.manifest.images.container.digest):
        assert packs.reclaim(list_snapshots(store, RUN)) == 0
    assert packs.reclaim(list_snapshots(store, RUN)) > 0
    assert_whole(list_snapshots(store, RUN), series)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.lists(st.tuples(st.integers(0, PARTS * PART), st.integers(1, PART)), max_size=4))
def test_being_killed_between_two_holes_does_no_harm(
    extra: list[tuple[int, int]], store: Store, series: Contents
) -> None:
    """Some of the holes are there, others are not."""
    first = next(iter(series))
    if store.run(RUN).snapshot(first).path.exists():
        remove(store, first)
    entries = list_snapshots(store, RUN)
    for entry in entries:
        assert entry.manifest is not None
        for pack in entry.manifest.images.container.packs if entry.manifest.images.container else ():
            with holes.hold(entry.folder.images / pack.name) as held:
                assert held is not None
                uses = [
                    use
                    for one in entries
                    if one.manifest and one.manifest.images.container
                    for use in holes.references(one.folder.images, one.manifest.images.container.digest)
                    if use.inode == held.inode
                ]
                keep = [piece for use in uses for piece in use.ranges]
                holes.punch(held, [*keep, *((start, start + size) for start, size in extra)])
    assert_whole(entries, series)
    packs.reclaim(entries)
    assert_whole(entries, series)


def test_what_was_found_damaged_is_shared_with_nobody(store: Store, series: Contents) -> None:
    """Not by way of another snapshot either, which has the same file."""
    _, second, third, last = series
    found = newest_with_container(store.run(RUN))
    assert found is not None
    assert found.id == last
    folder = store.run(RUN).snapshot(third)
    labels.write(folder, Labels(verification=Verification(datetime.now(UTC), sound=False)))
    assert newest_with_container(store.run(RUN)) is None, "all share the container of the first"
    alone = put(store, 9, series[second])
    found = newest_with_container(store.run(RUN))
    assert found is not None
    assert found.id == alone
    assert packs.shares(found).isdisjoint(packs.shares(list_snapshots(store, RUN)[0]))
