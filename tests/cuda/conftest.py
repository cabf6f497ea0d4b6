"""Fixtures of the CUDA tests: a machine with fake GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_gpu import FakeGpu, fake_gpu


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeGpu]:
    """A machine with one fake GPU and driver 580, or the branch that an indirect parameter names."""
    with fake_gpu(tmp_path / "gpu", getattr(request, "param", 580)) as found:
        yield found
