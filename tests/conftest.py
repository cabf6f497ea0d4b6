"""Gates and fixtures for all tests; see tests/support for the types."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import CommandLine, Jobs
from support.capabilities import CAPABILITIES, criu_program, required

# Ignored where a shell started the tests in its background, or nohup did; what the tests start would inherit that.
_IGNORED_BY_SHELLS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def pytest_configure(config: pytest.Config) -> None:
    for number in _IGNORED_BY_SHELLS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # means nothing to pytest, as it was, but is not inherited
    config.addinivalue_line("markers", "quiet: needs the machine for itself; `make test` runs these last, one by one")
    for name in CAPABILITIES:
        config.addinivalue_line(
            "markers", f"requires_{name}: skipped without {name}, fails if CKPTCTL_REQUIRE names it"
        )
    try:
        required(os.environ.get("CKPTCTL_REQUIRE", ""))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    # No example is too slow on a machine that is busy. Where everything is required the same code gets the same verdict
    # each time; elsewhere new examples are looked for.
    everything = "CKPTCTL_REQUIRE" in os.environ
    settings.register_profile("tests", deadline=None, derandomize=everything, max_examples=50 if everything else 100)
    settings.load_profile("tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, probe in CAPABILITIES.items():
        if item.get_closest_marker(f"requires_{name}") and not probe():
            if name in required(os.environ.get("CKPTCTL_REQUIRE", "")):
                pytest.fail(f"{name} is missing, and CKPTCTL_REQUIRE names it", pytrace=False)
            pytest.skip(f"{name} is missing")


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[Jobs]:
    """`start_job(argv, ...)` starts a real program; whatever becomes of it, nothing is left after the test."""
    jobs = Jobs(tmp_path / "jobs")
    yield jobs
    jobs.close()


@pytest.fixture
def ckptctl(tmp_path: Path) -> Iterator[CommandLine]:
    """`ckptctl("list", "--json")` runs the real command with a store of its own at `ckptctl.store`."""
    command_line = CommandLine(tmp_path / "ckptctl")
    yield command_line
    command_line.close()


@pytest.fixture
def criu() -> Path:
    """The CRIU program; for tests marked `requires_criu`."""
    program = criu_program()
    assert program is not None, "mark this test with requires_criu"
    return program
