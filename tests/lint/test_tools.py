"""The linters, as tests: one `make test` says all there is to say about a change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TYPED_BESIDE_THE_PACKAGE = ["tests/conftest.py", "tests/support", "tests/lint", "tests/scripts", "bench"]


def shell_scripts() -> list[Path]:
    """Everything in scripts/ and .ci/ that a shell runs."""
    found = [path for path in programs() if first_line(path).endswith("sh")]
    assert len(found) >= 4
    return found


def python_scripts() -> list[Path]:
    return [path for path in programs() if "python" in first_line(path)]


def programs() -> list[Path]:
    found = sorted(path for folder in ("scripts", ".ci") for path in (ROOT / folder).iterdir() if path.is_file())
    return [*found, ROOT / "ckptctl" / "criu" / "install-criu"]


def first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0]


def tool(name: str) -> str:
    """The tool from the folder of this Python, else from PATH."""
    found = shutil.which(name, path=f"{BIN}:/usr/local/bin:/usr/bin:/bin")
    assert found, f"{name} is missing: run `scripts/setup --dev`"
    return found


def run(words: Sequence[str | Path]) -> None:
    # Scripts import what lies beside them.
    environment = {**os.environ, "MYPYPATH": "scripts"}
    done = subprocess.run(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(arguments: list[str]) -> None:
    run([tool("ruff"), *arguments, "--quiet", "."])


def test_mypy_on_the_package() -> None:
    run([tool("mypy"), "--no-error-summary"])


def test_mypy_beside_the_package() -> None:
    run([tool("mypy"), "--no-error-summary", "--follow-imports=silent", *TYPED_BESIDE_THE_PACKAGE])


@pytest.mark.parametrize("script", python_scripts(), ids=lambda path: path.name)
def test_mypy_on_scripts(script: Path) -> None:
    run([tool("mypy"), "--no-error-summary", "--follow-imports=silent", script])


def test_imports_go_down_only() -> None:
    run([tool("lint-imports")])


def test_shellcheck() -> None:
    run([tool("shellcheck"), *shell_scripts()])
