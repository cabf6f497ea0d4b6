"""What the kernel is asked: its options from the places where systems keep them, and its features for real."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import pytest

from ckptctl.host.kernel import read_kernel, read_options

_CONFIG = b"# CONFIG_MEM_SOFT_DIRTY is not set\nCONFIG_CHECKPOINT_RESTORE=y\nCONFIG_UNIX_DIAG=m\nCONFIG_HZ=250\n"


@pytest.mark.parametrize("place", ["proc/config.gz", "boot/config-6.8.0-1", "lib/modules/6.8.0-1/config"])
def test_options_are_found(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(_CONFIG) if place.endswith(".gz") else _CONFIG)
    assert read_options(tmp_path, "6.8.0-1") == (f"/{place}", {"CHECKPOINT_RESTORE", "UNIX_DIAG"})


def test_without_a_record_there_are_no_options(tmp_path: Path) -> None:
    assert read_options(tmp_path, "6.8.0-1") == (None, frozenset())


def test_a_record_that_is_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(_CONFIG)[:-12])
    assert read_options(tmp_path, "6.8.0-1") == (None, frozenset())


def held() -> tuple[int, int, str]:
    """How many descriptors and threads this process has, and its children."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return descriptors, threading.active_count(), children.read_text() if children.exists() else ""


def test_asking_makes_no_process_and_leaves_nothing_open() -> None:
    before = held()
    kernel = read_kernel()
    assert held() == before
    assert kernel.checkpoint_restore is Path("/proc/sys/kernel/ns_last_pid").exists()


def test_features_agree_with_the_options() -> None:
    """Where the kernel tells its options, what it answers must not contradict them."""
    kernel = read_kernel()
    if not kernel.options:
        pytest.skip("this kernel does not tell its options")
    assert kernel.checkpoint_restore is ("CHECKPOINT_RESTORE" in kernel.options)
    assert kernel.soft_dirty is ("MEM_SOFT_DIRTY" in kernel.options)
    if "USERFAULTFD" not in kernel.options:
        assert kernel.userfaultfd.value == "missing"
