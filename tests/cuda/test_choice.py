"""Which way the driver is driven on which machine, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptctl.cuda.choice import choose
from ckptctl.cuda.interface import DriverInterface
from ckptctl.cuda.results import CudaUnavailable
from ckptctl.cuda.utility import CheckpointUtility
from support.fake_gpu import FakeGpu

pytestmark = pytest.mark.requires_fake_gpu
ROOT = Path(__file__).parents[2]


def without_bindings(folder: Path) -> dict[str, str]:
    """An environment in which the package cuda-bindings cannot be imported."""
    (folder / "cuda").mkdir(parents=True)
    (folder / "cuda/__init__.py").write_text("")
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def test_the_interface_is_preferred_to_the_utility(machine: FakeGpu) -> None:
    choice = choose(f"{machine.bin}:{os.environ['PATH']}", machine.environment)
    assert isinstance(choice.require(), DriverInterface)
    assert "CUDA API 13.0" in choice.reason
    choice.require().close()


def test_the_utility_is_taken_where_the_bindings_are_not_installed(machine: FakeGpu, tmp_path: Path) -> None:
    environment = {**machine.environment, **without_bindings(tmp_path / "shadow")}
    choice = choose(f"{machine.bin}:{os.environ['PATH']}", environment)
    assert isinstance(choice.require(), CheckpointUtility)
    assert "cuda-bindings is not usable" in choice.reason


def test_where_neither_is_there_both_reasons_are_given(machine: FakeGpu, tmp_path: Path) -> None:
    environment = {**machine.environment, **without_bindings(tmp_path / "shadow")}
    choice = choose(str(tmp_path), environment)
    assert choice.driver is None
    with pytest.raises(CudaUnavailable, match=r"cuda-bindings is not usable.*cuda-checkpoint is not installed"):
        choice.require()


@pytest.mark.parametrize("branch", [550, 565])
def test_a_driver_before_570_is_too_old_either_way(machine: FakeGpu) -> None:
    choice = choose(f"{machine.bin}:{os.environ['PATH']}", machine.environment)
    assert choice.driver is None
    assert "older than 570" in choice.reason
    assert "--get-state" in choice.reason


def test_without_a_driver_library_the_reason_says_so(tmp_path: Path) -> None:
    choice = choose(str(tmp_path))
    assert choice.driver is None
    assert "libcuda.so.1" in choice.reason


def test_a_utility_that_finds_no_device_is_not_taken(machine: FakeGpu, tmp_path: Path) -> None:
    machine.set_cards()
    environment = {**machine.environment, **without_bindings(tmp_path / "shadow")}
    choice = choose(str(machine.bin), environment)
    assert choice.driver is None
    assert "no CUDA-capable device" in choice.reason
