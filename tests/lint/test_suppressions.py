"""Rules that are switched off in place: few, and each says which rule (layout has only one)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_PER_1000_LINES = 3
_SUPPRESSION = re.compile(r"#\s*(noqa\b|type:\s*ignore|pyright:|pragma:|pylint:|fmt:\s*(?:off|skip)|ruff:|mypy:).*")
_NAMES_ITS_RULE = re.compile(r"#\s*(noqa:\s*[A-Z]+\d+|type:\s*ignore\[[\w,-]+\]|fmt:)")


def python_files(*folders: str) -> list[Path]:
    """The tracked Python files below these folders, or all."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", *folders], cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name.endswith(".py")]
    return [ROOT / name for name in names if (ROOT / name).exists() and ROOT / name != Path(__file__)]


def suppressions(path: Path) -> list[str]:
    return [match[0] for line in path.read_text().splitlines() if (match := _SUPPRESSION.search(line))]


def test_there_are_few_in_the_package() -> None:
    files = python_files("ckptctl")
    lines = sum(path.read_text().count("\n") for path in files)
    found = [f"{path.relative_to(ROOT)}: {each}" for path in files for each in suppressions(path)]
    assert len(found) <= MOST_PER_1000_LINES * lines / 1000, found


def test_each_names_its_rule() -> None:
    bare = [
        f"{path.relative_to(ROOT)}: {each}"
        for path in python_files()
        for each in suppressions(path)
        if not _NAMES_ITS_RULE.match(each)
    ]
    assert bare == []
