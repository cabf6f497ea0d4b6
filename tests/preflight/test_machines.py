"""What the checks say of other machines: golden files. With CKPTCTL_GOLDEN=write they are written anew."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from ckptctl.preflight import ready
from ckptctl.preflight.finding import Finding, Level
from support.machines import MACHINES

FOLDER = Path(__file__).with_name("machines")


def golden(findings: tuple[Finding, ...]) -> str:
    """One line a finding, so that a change of one is one line of a diff."""
    rows = [
        {**{name: value for name, value in asdict(one).items() if name != "data"}, "level": one.level.value}
        for one in findings
    ]
    lines = ",\n".join(json.dumps({key: row[key] for key in ("check", "level", "summary", "remedy")}) for row in rows)
    return f"[\n{lines}\n]\n"


@pytest.mark.parametrize("name", MACHINES)
def test_findings_are_those_of_the_golden_file(name: str) -> None:
    said = golden(ready.findings(MACHINES[name]))
    path = FOLDER / f"{name}.json"
    if os.environ.get("CKPTCTL_GOLDEN") == "write":
        path.write_text(said)
    assert said == path.read_text()


def test_every_golden_file_has_its_machine() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(MACHINES)


def amiss(name: str) -> dict[str, Level]:
    found = ready.findings(MACHINES[name])
    return {one.check: one.level for one in found if one.level not in (Level.OK, Level.SKIPPED)}


def test_a_good_machine_has_no_findings() -> None:
    for name in ("ubuntu-24.04", "ubuntu-22.04-own-criu", "driver-615.71.09", "store-on-lustre", "slurm-job"):
        assert amiss(name) == {}, name


@pytest.mark.parametrize(
    ("driver", "level"),
    [
        *((name, Level.ERROR) for name in ("535", "550.54.15")),
        *((name, None) for name in ("570.144", "575.57.08", "580.159.04", "590.44.01", "615.71.09")),
    ],
)
def test_drivers_from_570_on_can_save(driver: str, level: Level | None) -> None:
    assert amiss(f"driver-{driver}").get("cuda-driver") is level


def test_the_failure_of_an_old_criu_on_a_new_kernel_is_named() -> None:
    found = {one.check: one for one in ready.findings(MACHINES["debian-12-criu-3.17-linux-6.18"])}
    assert found["criu-kernel"].level is Level.ERROR
    assert "vDSO" in found["criu-kernel"].summary
    assert "6.18.44" in found["criu-kernel"].summary


def test_a_machine_without_gpu_has_one_line_about_it() -> None:
    found = [one for one in ready.findings(MACHINES["ubuntu-24.04"]) if one.group == "cuda"]
    assert [(one.check, one.level, one.summary) for one in found] == [
        ("cuda", Level.SKIPPED, "There is no NVIDIA GPU here.")
    ]


def test_what_is_amiss_has_a_remedy_and_nothing_else_has() -> None:
    for name, facts in MACHINES.items():
        for one in ready.findings(facts):
            assert (one.remedy is not None) is (one.level in (Level.WARNING, Level.ERROR)), (name, one)
            assert one.summary.endswith((".", "`", ")")), (name, one.summary)


def test_every_check_has_something_to_say_somewhere() -> None:
    """A check that is well on all of these machines would not be tested at all."""
    silent = {"control-groups", "container", "kernel-userfaultfd", "soft-dirty"}
    silent |= {"criu-plugins", "criu-images", "gpu-free-memory"}
    said = {check for name in MACHINES for check in amiss(name)}
    assert {check.name for check in ready.CHECKS} - said == silent
