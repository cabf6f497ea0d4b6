"""Every byte of every file that is lost or altered is found, and its file is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptctl.interrupt import Interrupted, Never
from ckptctl.store import manifest_json
from ckptctl.store.integrity import Damage, Problem, verify_data, verify_structure
from ckptctl.store.layout import SnapshotFolder

IMAGES = ("pages-1.img", "core-1.img", "deep/empty.img")


def structure(folder: SnapshotFolder) -> list[tuple[str, Problem]]:
    return [(damage.name, damage.problem) for damage in verify_structure(folder)]


def data(folder: SnapshotFolder) -> list[tuple[str, Problem]]:
    found = verify_data(folder, manifest_json.read(folder.manifest), Never(), lambda done, total: None)
    return [(damage.name, damage.problem) for damage in found]


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_snapshot_has_no_damage(snapshot: SnapshotFolder) -> None:
    told: list[tuple[int, int]] = []
    assert verify_structure(snapshot) == ()
    manifest = manifest_json.read(snapshot.manifest)
    assert verify_data(snapshot, manifest, Never(), lambda done, total: told.append((done, total))) == ()
    assert told[-1] == (manifest.images.size_bytes, manifest.images.size_bytes)


@pytest.mark.parametrize("position", [0, 5 << 20, (9 << 20) - 1])
def test_one_bit_is_found(snapshot: SnapshotFolder, position: int) -> None:
    flip(snapshot.images / "pages-1.img", position)
    assert structure(snapshot) == []
    assert data(snapshot) == [("images/pages-1.img", Problem.ALTERED)]


def replace_by_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (Path.unlink, Problem.MISSING),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), Problem.GROWN),
        (replace_by_folder, Problem.UNREADABLE),
        (replace_by_fifo, Problem.UNREADABLE),
    ],
)
def test_each_damaged_file_is_named(
    snapshot: SnapshotFolder, name: str, harm: Callable[[Path], object], problem: Problem
) -> None:
    harm(snapshot.images / name)
    assert structure(snapshot) == [(f"images/{name}", problem)]
    assert data(snapshot) == [(f"images/{name}", problem)]


@pytest.mark.parametrize("name", IMAGES[:2])
def test_a_truncated_file_is_named(snapshot: SnapshotFolder, name: str) -> None:
    path = snapshot.images / name
    os.truncate(path, path.stat().st_size - 1)
    assert structure(snapshot) == data(snapshot) == [(f"images/{name}", Problem.TRUNCATED)]


def test_a_link_is_never_followed(snapshot: SnapshotFolder) -> None:
    replace_by_link(snapshot.images / "core-1.img")
    assert ("images/core-1.img", Problem.LINK) in structure(snapshot)
    assert data(snapshot) == [("images/core-1.img", Problem.LINK)]


def test_a_folder_that_is_a_link_is_never_followed(snapshot: SnapshotFolder) -> None:
    (snapshot.images / "deep").rename(snapshot.path / "deeper")
    (snapshot.images / "deep").symlink_to("../deeper")
    assert ("images/deep/empty.img", Problem.LINK) in structure(snapshot)
    assert data(snapshot) == [("images/deep/empty.img", Problem.LINK)]


def test_every_damaged_file_is_reported_at_once(snapshot: SnapshotFolder) -> None:
    flip(snapshot.images / "pages-1.img", 1)
    (snapshot.images / "core-1.img").unlink()
    assert dict(data(snapshot)) == {
        "images/pages-1.img": Problem.ALTERED,
        "images/core-1.img": Problem.MISSING,
    }


def test_a_file_that_the_manifest_does_not_name_is_damage(snapshot: SnapshotFolder) -> None:
    (snapshot.images / "seccomp.img").touch(mode=0o600)
    (snapshot.logs / "restore.log").touch(mode=0o600)
    assert structure(snapshot) == [("images/seccomp.img", Problem.EXTRA)]


def test_a_manifest_that_cannot_be_read(snapshot: SnapshotFolder) -> None:
    snapshot.manifest.write_text("{}")
    (damage,) = verify_structure(snapshot)
    assert (damage.name, damage.problem, damage.fatal) == ("manifest.json", Problem.UNREADABLE, True)
    assert str(snapshot.manifest) not in damage.detail
    assert "version" in str(damage)


def test_what_others_can_read_is_said_but_is_not_fatal(snapshot: SnapshotFolder) -> None:
    (snapshot.images / "core-1.img").chmod(0o644)
    snapshot.images.chmod(0o750)
    found = verify_structure(snapshot)
    assert [str(damage) for damage in found] == [
        "images: open to other users (mode 0750)",
        "images/core-1.img: open to other users (mode 0644)",
    ]
    assert not any(damage.fatal for damage in found)


def test_no_images_at_all(snapshot: SnapshotFolder) -> None:
    snapshot.images.rename(snapshot.path.parent / "away")
    assert structure(snapshot) == [(f"images/{name}", Problem.MISSING) for name in sorted(IMAGES)]


def test_no_snapshot_at_all(tmp_path: Path) -> None:
    (damage,) = verify_structure(SnapshotFolder(tmp_path / "none"))
    assert (damage.name, damage.problem) == ("manifest.json", Problem.UNREADABLE)


def test_it_can_be_interrupted(snapshot: SnapshotFolder) -> None:
    class Now:
        def check(self) -> None:
            raise Interrupted("Stopped by SIGINT.")

    with pytest.raises(Interrupted):
        verify_data(snapshot, manifest_json.read(snapshot.manifest), Now(), lambda done, total: None)


def test_damage_as_people_read_it() -> None:
    assert str(Damage("images/a", Problem.MISSING)) == "images/a: missing"
