"""The list of all checks that the manual is made from."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ckptctl.preflight import gpu
from ckptctl.preflight.describe import GPU_GATE, describe_checks


def test_names_are_unique_and_plain() -> None:
    names = Counter(one.name for one in describe_checks())
    assert [name for name, count in names.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)


def test_every_check_says_what_it_protects_and_what_to_do() -> None:
    for one in describe_checks():
        assert one.protects.endswith("."), one.name
        assert one.remedy, one.name


def test_every_finding_about_the_gpus_of_a_snapshot_is_described() -> None:
    said = set(re.findall(r'"(gpu-[a-z]+)"', Path(gpu.__file__).read_text()))
    assert said == {one.name for one in GPU_GATE}
