"""Jobs under a keeper, in a run of the store that the command line of the same test uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptctl.store.layout import Store, create_store
from support import CommandLine
from support.kept import KeptJobs
from support.recorder import Recorder
from support.supervised import Supervised
from support.web import Answering, Serve, Web


@pytest.fixture
def store(ckptctl: CommandLine) -> Store:
    return create_store(ckptctl.store)


@pytest.fixture
def start_kept(store: Store) -> Iterator[KeptJobs]:
    """`start_kept("python", "train.py")` starts a job under a keeper; nothing of it is left after the test."""
    run = store.run("gpt")
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


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(answering)` starts a real server; it is gone after the test."""
    started: list[Web] = []

    def start(answering: Answering) -> Web:
        started.append(Web(answering))
        return started[-1]

    yield start
    for web in started:
        web.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
