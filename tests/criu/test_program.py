"""Which criu is taken, with programs that stand in for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ckptctl.criu.program import Criu, CriuMissing, CriuTooOld, find


class Finder:
    """`find` with a private folder of its own and nothing in the system's."""

    def __init__(self, private: Path) -> None:
        self.private = private

    def __call__(self, environ: Mapping[str, str]) -> Criu:
        return find(environ, private=self.private, system_folders=())


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    return Finder(tmp_path / "private" / "criu")


def fake(path: Path, says: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_the_named_one_comes_first(tmp_path: Path, finder: Finder) -> None:
    named = fake(tmp_path / "named", "Version: 4.3")
    fake(finder.private, "Version: 4.2")
    found = finder({"CKPTCTL_CRIU": str(named)})
    assert (found.path, found.version, found.source) == (named, (4, 3), "$CKPTCTL_CRIU")


def test_the_private_one_comes_before_path(tmp_path: Path, finder: Finder) -> None:
    fake(finder.private, "Version: 4.2.1")
    fake(tmp_path / "bin" / "criu", "Version: 4.3")
    found = finder({"PATH": str(tmp_path / "bin")})
    assert (found.path, found.version_text, found.source) == (finder.private, "4.2.1", "scripts/install-criu")


def test_path_is_the_last_resort(tmp_path: Path, finder: Finder) -> None:
    fake(tmp_path / "bin" / "criu", "Version: 4.1\nGitID: v4.1")
    found = finder({"PATH": f"/nowhere:{tmp_path / 'bin'}"})
    assert (found.version, found.source) == ((4, 1), "PATH")


@pytest.mark.parametrize(("says", "status"), [("Version: 4.2", 1), ("hello", 0)])
def test_a_named_one_that_does_not_run_is_an_error(tmp_path: Path, finder: Finder, says: str, status: int) -> None:
    fake(tmp_path / "bin" / "criu", "Version: 4.2")
    broken = fake(tmp_path / "broken", says, status)
    with pytest.raises(CriuMissing, match=r"CKPTCTL_CRIU"):
        finder({"CKPTCTL_CRIU": str(broken), "PATH": str(tmp_path / "bin")})


def test_a_named_one_that_is_not_there_is_an_error(tmp_path: Path, finder: Finder) -> None:
    fake(tmp_path / "bin" / "criu", "Version: 4.2")
    with pytest.raises(CriuMissing):
        finder({"CKPTCTL_CRIU": str(tmp_path / "none"), "PATH": str(tmp_path / "bin")})


def test_none_at_all_names_the_remedy(finder: Finder) -> None:
    with pytest.raises(CriuMissing) as caught:
        finder({"PATH": "/nowhere"})
    assert "ckptctl check --fix" in str(caught.value.hint)


def test_an_old_one_is_refused(tmp_path: Path, finder: Finder) -> None:
    fake(tmp_path / "bin" / "criu", "Version: 3.17.1")
    with pytest.raises(CriuTooOld, match=r"3\.17\.1.*needs 4\.1"):
        finder({"PATH": str(tmp_path / "bin")})
