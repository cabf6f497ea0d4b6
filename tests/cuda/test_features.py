"""Versions of drivers, what they can do, and what their answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.cuda.driver import Action
from ckptctl.cuda.features import MINIMUM_DRIVER, CudaFeatureMissing, DriverVersion, Feature, features_of, require
from ckptctl.cuda.results import CudaError, CudaResult, failure
from ckptctl.errors import CkptctlError


def test_versions_compare_number_by_number() -> None:
    ordered = ["550.163.01", "570", "570.9", "570.86.10", "570.144", "575.57.07", "575.57.08", "580.159.04", "1000.1"]
    assert sorted(ordered, key=DriverVersion.parse) == ordered
    assert DriverVersion.parse("575.57.8") == DriverVersion.parse("575.57.08")
    assert str(DriverVersion.parse("575.57.08\n")) == "575.57.08"


@pytest.mark.parametrize("text", ["", "N/A", "570.", "570.x", "-570"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a driver version"):
        DriverVersion.parse(text)


def test_every_feature_has_a_minimum_and_newer_drivers_can_do_no_less() -> None:
    assert set(MINIMUM_DRIVER) == set(Feature)
    assert features_of(DriverVersion.parse("565.57.01")) == ()
    assert features_of(DriverVersion.parse("570.144")) == (Feature.CHECKPOINT,)
    assert Feature.GPU_MAP in features_of(DriverVersion.parse("580.65.06"))
    assert Feature.JOB_FILE not in features_of(DriverVersion.parse("580.159.04"))
    assert features_of(DriverVersion.parse("615.71.09")) == tuple(Feature)


def test_a_missing_feature_names_its_purpose_and_both_versions() -> None:
    with pytest.raises(CudaFeatureMissing) as caught:
        require(DriverVersion.parse("570.144"), Feature.GPU_MAP)
    assert "570.144" in caught.value.message
    assert "580" in caught.value.message
    assert Feature.GPU_MAP.value in caught.value.message


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("result", [*CudaResult, 4242])
def test_every_result_of_every_action_has_cause_and_remedy(action: Action, result: int) -> None:
    error = failure(action, 4711, result)
    assert "4711" in error.message
    assert str(int(result)) in error.message
    assert error.hint


def test_every_error_has_a_code_of_its_own() -> None:
    kinds: list[type[CkptctlError]] = [CudaError, CudaFeatureMissing]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    assert all(code.startswith("E_CUDA") for code in codes)


def test_the_documentation_has_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/gpu.md").read_text()
    rows = page.partition("<!-- features -->")[2].partition("<!-- /features -->")[0].strip().splitlines()[2:]
    assert rows == [f"| {feature.value} | {MINIMUM_DRIVER[feature]} |" for feature in Feature]
