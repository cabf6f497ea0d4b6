"""Which mount holds a folder, and what its file system offers."""

from __future__ import annotations

from pathlib import Path

from ckptctl import command
from ckptctl.host.place import Place, mount_of, place_from, read_place

_MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw,nosuid shared:2 master:3 - nfs4 server:/home rw,vers=4.2,local_lock=none
31 22 0:41 / /home rw - tmpfs tmpfs rw,size=1g
32 22 0:42 / /mnt/my\040disk rw - xfs /dev/sdb rw
a line that is cut
"""


def test_the_nearest_and_latest_mount_holds_a_path() -> None:
    found = mount_of(Path("/home/me/store"), _MOUNTS)
    assert found is not None
    assert (found.point, found.kind) == ("/home", "tmpfs")
    without = mount_of(Path("/home/me/store"), "\n".join(_MOUNTS.splitlines()[:2]))
    assert without is not None
    assert without.kind == "nfs4"
    assert {"nosuid", "local_lock=none", "vers=4.2"} <= set(without.options)


def test_names_are_compared_as_a_whole_and_blanks_are_blanks() -> None:
    assert getattr(mount_of(Path("/homes/me"), _MOUNTS), "kind", None) == "ext4"
    assert getattr(mount_of(Path("/mnt/my disk/store"), _MOUNTS), "kind", None) == "xfs"
    assert mount_of(Path("/x"), "") is None


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    link = tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to("real")
    place = read_place(link / "not" / "yet")
    assert place.path == str((tmp_path / "real").resolve())
    assert place.writable
    assert 0 <= place.free_bytes <= place.total_bytes


def test_a_child_says_the_same(tmp_path: Path) -> None:
    said = command.run(command.python_module("ckptctl.host.place", str(tmp_path)), timeout_s=60).stdout
    place, here = place_from(said), read_place(tmp_path)
    assert (place.path, place.total_bytes, place.writable) == (here.path, here.total_bytes, here.writable)
    assert place_from('a warning\n{"path": "/x", "free_bytes": 1, "total_bytes": 2, "writable": false}') == Place(
        "/x", 1, 2, False
    )
