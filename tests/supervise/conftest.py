"""Jobs under a keeper, in a run of the store that the command line of the same test uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptctl.store.layout import create_store
from support import CommandLine
from support.kept import KeptJobs
from support.supervised import Supervised


@pytest.fixture
def start_kept(ckptctl: CommandLine) -> Iterator[KeptJobs]:
    """`start_kept("python", "train.py")` starts a job under a keeper; nothing of it is left after the test."""
    run = create_store(ckptctl.store).run("gpt")
    run.path.mkdir(mode=0o700)
    kept = KeptJobs(run)
    yield kept
    kept.close()


@pytest.fixture
def supervise(ckptctl: CommandLine, tmp_path: Path) -> Iterator[Supervised]:
    """`supervise("--every", "30m", job=...)` starts `ckptctl run`; nothing of the run is left after the test."""
    folder = tmp_path / "job"
    folder.mkdir()
    supervised = Supervised(ckptctl, folder)
    yield supervised
    supervised.close()
