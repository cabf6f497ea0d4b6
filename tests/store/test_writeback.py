from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ckptctl.store.writeback import Writeback

MEBIBYTE = 1 << 20


def dirty_bytes() -> int:
    """Bytes of the page cache that nothing writes out yet."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Dirty:"))
    return int(line.split()[1]) * 1024


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.quiet
def test_what_grows_is_written_out_before_anybody_asks(tmp_path: Path) -> None:
    os.sync()
    size = 256 * MEBIBYTE
    with Writeback(tmp_path):
        with (tmp_path / "pages-1.img").open("wb", buffering=0) as file:
            for _ in range(size // MEBIBYTE):
                file.write(os.urandom(MEBIBYTE))
        time.sleep(1)
        # The kernel itself would not begin for five seconds (dirty_writeback_centisecs).
        left = dirty_bytes()
    assert left < size / 2


def test_files_that_come_and_go_do_no_harm(tmp_path: Path) -> None:
    before = threading.active_count(), open_descriptors()
    with Writeback(tmp_path):
        (tmp_path / "link").symlink_to("/dev/zero")
        os.mkfifo(tmp_path / "fifo")
        for number in range(20):
            path = tmp_path / f"{number}.img"
            path.write_bytes(bytes(40 * MEBIBYTE if number % 10 == 0 else 10))
            time.sleep(0.01)
            path.unlink()
    assert (threading.active_count(), open_descriptors()) == before


def test_a_folder_that_is_missing_does_no_harm(tmp_path: Path) -> None:
    with Writeback(tmp_path / "none"):
        time.sleep(0.05)
