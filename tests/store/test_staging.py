"""A snapshot appears all at once or not at all."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.interrupt import Interrupted, Never
from ckptctl.store import manifest_json
from ckptctl.store.catalog import list_snapshots
from ckptctl.store.integrity import verify_structure
from ckptctl.store.layout import Store, create_store
from ckptctl.store.staging import (
    Staging,
    TargetIsMount,
    TargetNotEmpty,
    commit,
    create,
    discard,
    is_committed,
    place_beside,
    place_in_store,
)
from support.manifests import SNAPSHOT_ID, make_manifest


class Now:
    """An interrupt that has come."""

    def check(self) -> None:
        raise Interrupted("Stopped by SIGINT.")


def opened(staging: Staging) -> Staging:
    create(staging)
    return staging


def fill(staging: Staging) -> None:
    (staging.folder.images / "pages-1.img").write_bytes(b"pages")
    (staging.folder.logs / "dump.log").write_text("done")
    staging.folder.restore_script.write_text("#!/bin/sh\n")
    manifest_json.write(staging.folder.manifest, make_manifest())


def test_a_snapshot_appears_in_its_run(store: Store) -> None:
    staging = opened(place_in_store(store, "train", SNAPSHOT_ID))
    fill(staging)
    assert list_snapshots(store) == ()
    assert not is_committed(staging)
    commit(staging, Never())
    assert is_committed(staging)
    (entry,) = list_snapshots(store)
    assert (entry.id, entry.run, entry.problem) == (SNAPSHOT_ID, "train", None)
    assert list(store.staging.iterdir()) == []


def test_everything_in_it_is_private_whatever_criu_did(store: Store) -> None:
    staging = opened(place_in_store(store, "train", SNAPSHOT_ID))
    fill(staging)
    (staging.folder.images / "pages-1.img").chmod(0o644)
    staging.folder.images.chmod(0o755)
    commit(staging, Never())
    assert verify_structure(staging.final) == ()
    assert staging.final.restore_script.stat().st_mode & 0o777 == 0o700
    assert (staging.final.images / "pages-1.img").stat().st_mode & 0o777 == 0o600


def test_an_interrupt_before_the_rename_leaves_nothing_listed(store: Store) -> None:
    staging = opened(place_in_store(store, "train", SNAPSHOT_ID))
    fill(staging)
    with pytest.raises(Interrupted):
        commit(staging, Now())
    assert list_snapshots(store) == ()
    assert not is_committed(staging)
    discard(staging.folder)
    discard(staging.folder)
    assert list(store.staging.iterdir()) == []


def test_a_snapshot_that_is_there_is_never_replaced(store: Store) -> None:
    first = opened(place_in_store(store, "train", SNAPSHOT_ID))
    fill(first)
    second = Staging(first.folder, first.final)
    commit(first, Never())
    with pytest.raises(TargetNotEmpty):
        place_in_store(store, "train", SNAPSHOT_ID)
    for path in (second.folder.images, second.folder.logs):
        files.make_private_folder(path)
    with pytest.raises(TargetNotEmpty):  # it came between looking and renaming
        commit(second, Never())
    assert first.final.manifest.is_file()


@pytest.mark.parametrize("name", ["new", "a b", "-rf", "x;y", "quo'te", "line\nbreak"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_of_its_own(tmp_path: Path, name: str, exists: bool) -> None:
    target = tmp_path / name
    if exists:
        target.mkdir()
    staging = opened(place_beside(target, SNAPSHOT_ID))
    fill(staging)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ([name] if exists else [])
    commit(staging, Never())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert manifest_json.read(target / "manifest.json") == make_manifest()
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    staging = opened(place_beside(tmp_path / "link", SNAPSHOT_ID))
    fill(staging)
    commit(staging, Never())
    assert (tmp_path / "real" / "manifest.json").is_file()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "occupy",
    [
        lambda path: path.touch(),
        lambda path: (path.mkdir(), (path / "mine").touch()),
        lambda path: path.symlink_to("/dev/null"),
    ],
)
def test_a_target_with_something_in_it_is_refused(tmp_path: Path, occupy: Callable[[Path], object]) -> None:
    occupy(tmp_path / "x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TargetNotEmpty):
        place_beside(tmp_path / "x", SNAPSHOT_ID)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_comes_in_between_is_not_lost(tmp_path: Path) -> None:
    staging = opened(place_beside(tmp_path / "x", SNAPSHOT_ID))
    fill(staging)
    (tmp_path / "x").write_text("precious")
    with pytest.raises(TargetNotEmpty):
        commit(staging, Never())
    assert (tmp_path / "x").read_text() == "precious"
    assert staging.folder.manifest.is_file()


def test_the_top_of_a_file_system_is_refused() -> None:
    mount = next((path for path in map(Path, ("/dev/mqueue", "/dev/shm")) if path.is_mount()), None)
    if mount is None or any(mount.iterdir()):
        pytest.skip("there is no empty mount here")
    with pytest.raises(TargetIsMount):
        place_beside(mount, SNAPSHOT_ID)


_COMMITS = """
import sys
from pathlib import Path
from ckptctl.interrupt import Never
from ckptctl.store import manifest_json
from ckptctl.store.layout import open_store
from ckptctl.store.staging import commit, create, place_in_store
store = open_store(Path(sys.argv[1]))
for number in range(1000):
    staging = place_in_store(store, "train", f"20261120T193000Z-{number:06x}")
    create(staging)
    (staging.folder.images / "pages-1.img").write_bytes(b"pages")
    manifest = manifest_json.from_json(Path(sys.argv[2]).read_bytes(), "golden")
    import dataclasses
    manifest_json.write(staging.folder.manifest, dataclasses.replace(manifest, id=staging.final.name))
    commit(staging, Never())
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_any_moment_leaves_only_whole_snapshots(tmp_path: Path, seed: int) -> None:
    store = create_store(tmp_path / "store")
    golden = Path(__file__).with_name("golden") / "manifest-v1.json"
    process = subprocess.Popen([sys.executable, "-c", _COMMITS, store.path, golden], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        time.sleep(random.Random(seed).uniform(0, 0.2))
    finally:
        process.kill()
        said = process.stdout.read().split() if process.stdout else []
        process.wait()
    entries = list_snapshots(store)
    assert all(entry.problem is None and verify_structure(entry.folder) == () for entry in entries)
    assert len(entries) >= 1 + len(said)  # what it reported as committed is there


def test_a_rename_that_cannot_be_leaves_the_staging_folder(tmp_path: Path) -> None:
    small = Path("/dev/shm")
    if not os.access(small, os.W_OK):
        pytest.skip("no writable tmpfs")
    staging = opened(place_beside(tmp_path / "x", SNAPSHOT_ID))
    fill(staging)
    # Its place has become another file system: the rename cannot be.
    elsewhere = small / f"ckptctl-{os.getpid()}"
    elsewhere.mkdir()
    try:
        moved = Staging(staging.folder, type(staging.final)(elsewhere / "x"))
        with pytest.raises(CkptctlError, match="cross-device"):
            commit(moved, Never())
        assert staging.folder.manifest.is_file()
    finally:
        elsewhere.rmdir()
