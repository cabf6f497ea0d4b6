from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptctl.files import FileTrouble
from ckptctl.store.layout import Store, StoreMissing, StoreUnsafe, create_store, open_store, require_own
from ckptctl.store.names import BadRunName


def test_a_new_store_is_private_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        store = create_store(tmp_path / "a" / "store")
    finally:
        os.umask(former)
    for folder in (store.path, store.runs, store.staging, store.trash, store.locks):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_creating_again_leaves_it_as_it_is(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store")
    (store.runs / "train").mkdir()
    assert create_store(tmp_path / "store") == store
    assert (store.runs / "train").is_dir()
    assert open_store(tmp_path / "store") == store


def test_a_link_to_the_store_is_resolved(tmp_path: Path) -> None:
    create_store(tmp_path / "store")
    (tmp_path / "link").symlink_to("store")
    assert open_store(tmp_path / "link").path == tmp_path / "store"


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no store at"):
        open_store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileTrouble):
        create_store(tmp_path / "file")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702])
def test_a_store_that_others_may_write_to_is_refused(store: Store, mode: int) -> None:
    store.path.chmod(mode)
    with pytest.raises(StoreUnsafe, match=f"mode 0{mode:o}") as caught:
        open_store(store.path)
    assert "chmod go-w" in (caught.value.hint or "")
    with pytest.raises(StoreUnsafe):
        create_store(store.path)


def test_the_folder_of_runs_must_be_safe_too(store: Store) -> None:
    store.runs.chmod(0o777)
    with pytest.raises(StoreUnsafe):
        open_store(store.path)


def test_others_may_look(store: Store) -> None:
    store.path.chmod(0o755)
    assert open_store(store.path) == store


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_store_of_somebody_else_is_refused(store: Store) -> None:
    os.chown(store.path, 12345, 12345)
    with pytest.raises(StoreUnsafe, match="belongs to the user with id 12345"):
        open_store(store.path)


def test_a_folder_that_is_missing_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(FileTrouble):
        require_own(tmp_path / "none")


def test_only_names_and_ids_become_paths(store: Store) -> None:
    with pytest.raises(BadRunName):
        store.run("../x")
    with pytest.raises(ValueError, match="not an id"):
        store.run("x").snapshot("../x")
