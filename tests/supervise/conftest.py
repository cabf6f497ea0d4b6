"""Jobs under a keeper, in a run of the store that the command line of the same test uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ckptctl.store.layout import create_store
from support import CommandLine
from support.kept import KeptJobs


@pytest.fixture
def start_kept(ckptctl: CommandLine) -> Iterator[KeptJobs]:
    """`start_kept("python", "train.py")` starts a job under a keeper; nothing of it is left after the test."""
    run = create_store(ckptctl.store).run("gpt")
    run.path.mkdir(mode=0o700)
    kept = KeptJobs(run)
    yield kept
    kept.close()
