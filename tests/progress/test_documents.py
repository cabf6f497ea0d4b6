"""What the pages about progress say is so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ckptctl.progress.formats import READY
from ckptctl.progress.parse import FORMS, Places, parse_source
from ckptctl.progress.status_file import StatusFile
from ckptctl.store.manifest import Progress

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "progress.md").read_text()
HOW_TO = (DOCS / "how-to" / "tell-ckptctl-how-far-the-training-is.md").read_text()


def block(language: str, text: str, number: int = 0) -> str:
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return blocks[number]


def test_every_source_and_form_is_described() -> None:
    for word in FORMS.split(", "):
        assert f"| `{word}` |" in REFERENCE
    for name in READY:
        assert f"| `{name}` |" in REFERENCE


def test_the_status_file_that_is_shown_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(block("json", REFERENCE))
    assert StatusFile(path).read() == Progress(
        120, 3, {"val_loss": 1.83, "lr": 0.001}, "status file", {"val_loss": 100, "lr": 120}
    )


def test_a_shell_script_can_write_it(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    environment = {"CKPTCTL_STATUS": str(path), "step": "7", "loss": "1.5", "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-euc", block("sh", HOW_TO)], check=True, env=environment)
    assert StatusFile(path).read() == Progress(7, None, {"val_loss": 1.5}, "status file", {"val_loss": 7})


def test_a_script_runs_where_ckptctl_is_not_installed(tmp_path: Path) -> None:
    script = block("python", HOW_TO, 1) + "\nreport(step=1, loss=2.0)\nprint(report.__module__)\n"
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "__main__\n"


@pytest.mark.parametrize("words", re.findall(r"`(--progress [^`]*)`", HOW_TO))
def test_the_words_that_are_shown_are_words(words: str) -> None:
    for word in re.split(r" ?--progress ", words):
        if word:
            parse_source(word.strip("'"), Places(Path("status.json"), (Path("log"),)))
