"""The page of the reference says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ckptctl.schedule.alerts import AlertCode
from ckptctl.schedule.intervals import daly_interval_s
from ckptctl.schedule.parse import PolicyWords, parse_on_best
from ckptctl.schedule.policy import GpuStable
from ckptctl.store.best import Mode
from support.schedules import policy_of

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "schedules.md").read_text()
OPTIONS = ["--" + field.name.replace("_", "-") for field in fields(PolicyWords)]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_told_of(option: str) -> None:
    assert f"`{option}" in PAGE


@pytest.mark.parametrize("code", AlertCode)
def test_every_alert_is_told_of(code: AlertCode) -> None:
    assert PAGE.count(f"| `{code}` |") == 1


def test_the_table_of_auto() -> None:
    header = re.findall(r"^\| pause of.*$", PAGE, re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+) s \|(.*)\|$", PAGE, re.MULTILINE)
    hours = [int(hour) for hour in re.findall(r"(\d+) h", header)]
    assert len(hours) == 4
    assert len(rows) == 3
    for pause, cells in rows:
        minutes = [int(cell) for cell in re.findall(r"(\d+) min", cells)]
        expected = [daly_interval_s(float(pause), hour * 3600) / 60 for hour in hours]
        assert minutes == pytest.approx(expected, abs=1)


def test_the_examples_can_be_typed() -> None:
    commands = re.findall(r"^# ckptctl run (.*) -- python", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        given: dict[str, list[str]] = {}
        for option, value in re.findall(r"--([a-z-]+) (\S+)", command):
            given.setdefault(option.replace("-", "_"), []).append(value)
        del given["run"]
        lists = {"on_best": tuple(given.pop("on_best"))} if "on_best" in given else {}
        words = {name: values[0] for name, values in given.items() if name != "every"}
        assert policy_of(*given["every"], **words, **lists).has_triggers


def test_the_words_and_numbers_named() -> None:
    assert GpuStable() == policy_of("1h", when_gpu_stable="64MiB/10s/5m").when_gpu_stable
    listed = re.search(r"has one of these words in it: (.*) and others", PAGE)
    assert listed is not None
    for word in re.findall(r"`(\w+)`", listed[1]):
        assert parse_on_best(f"eval_{word}").mode is Mode.MAX, word
