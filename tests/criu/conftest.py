"""A real criu, and folders for what it writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ckptctl.criu import program
from ckptctl.criu.dump import DumpRequest, Leave, dump
from ckptctl.criu.records import DumpStats
from ckptctl.interrupt import Never


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where one dump lies."""

    root_pid: int
    images: Path
    logs: Path


@dataclass(frozen=True, slots=True)
class Dumper:
    """Dumps with real criu, each time into folders of its own."""

    criu: program.Criu
    new_folders: Callable[[], tuple[Path, Path]]

    def request(
        self, pid: int, *options: str, leave: Leave = Leave.STOPPED, prefix: tuple[str, ...] = ()
    ) -> DumpRequest:
        images, logs = self.new_folders()
        return DumpRequest(pid, images, logs, options, leave, prefix)

    def __call__(self, request: DumpRequest) -> tuple[Snapshot, DumpStats]:
        stats = dump(self.criu, request, interrupt=Never(), on_progress=lambda _: None)
        return Snapshot(request.root_pid, request.images, request.logs), stats


@pytest.fixture
def program_found() -> program.Criu:
    return program.find(os.environ)


@pytest.fixture
def new_folders(tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """A new pair of folders for images and logs at each call."""
    count = iter(range(1000))

    def make() -> tuple[Path, Path]:
        base = tmp_path / f"snapshot-{next(count)}"
        for name in ("images", "logs"):
            (base / name).mkdir(parents=True)
        return base / "images", base / "logs"

    return make


@pytest.fixture
def dumper(program_found: program.Criu, new_folders: Callable[[], tuple[Path, Path]]) -> Dumper:
    return Dumper(program_found, new_folders)
