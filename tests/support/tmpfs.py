"""File systems in memory, and filling them up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `folder`, gone afterwards whatever is open in it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, but: int = 0) -> None:
    """Leave no more than `but` bytes on the file system of `folder`."""
    with open(folder / "ballast", "ab", buffering=0) as ballast:
        os.fchmod(ballast.fileno(), 0o600)
        while (free := _free_bytes(folder)) > but:
            with suppress(OSError):  # somebody else takes of it meanwhile
                os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, free - but)


def use_up_inodes(folder: Path) -> None:
    """Let no more file or folder be made on the file system of `folder`."""
    with suppress(OSError):
        for number in range(100_000):
            (folder / f"empty-{number}").touch()
    assert os.statvfs(folder).f_favail == 0


def _free_bytes(folder: Path) -> int:
    usage = os.statvfs(folder)
    return usage.f_bavail * usage.f_frsize
