"""A store, owners, and folders with snapshots in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckptctl.store.layout import SnapshotFolder, Store, create_store
from ckptctl.store.owner import Owner, this_owner
from support.manifests import put_snapshot

NOW = datetime(2026, 11, 20, 19, 30, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return create_store(tmp_path / "store")


@pytest.fixture
def owner() -> Owner:
    return this_owner("ckptctl dump --pid 1", NOW)


@pytest.fixture
def snapshot(tmp_path: Path) -> SnapshotFolder:
    """A whole snapshot in a folder of its own."""
    folder = SnapshotFolder(tmp_path / "snapshot")
    put_snapshot(folder, {"pages-1.img": os.urandom(9 << 20), "core-1.img": b"core", "deep/empty.img": b""})
    return folder


@pytest.fixture
def add(store: Store) -> Callable[..., str]:
    """`add("train", 3, tags=("x",))` puts a snapshot of step 3 into the store and returns its id."""

    def add_snapshot(run: str, number: int, **changes: object) -> str:
        created = NOW.replace(minute=number)
        snapshot_id = f"{created:%Y%m%dT%H%M%SZ}-s{number:06d}-{number:04x}"
        store.run(run).path.mkdir(mode=0o700, exist_ok=True)
        folder = store.run(run).snapshot(snapshot_id)
        put_snapshot(folder, {"core-1.img": b"core"}, id=snapshot_id, run=run, created=created, **changes)
        return snapshot_id

    return add_snapshot
