"""The tutorial on `run`, followed word for word on two terminals; only the training is shorter."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.jobs import MARK, kill_marked
from support.terminals import Terminal

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "survive-kill-9.md"
FOLDER, RUN = "/tmp/survive", "survivor"
_PART = re.compile(
    r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$|[Ii]n the (?P<which>first|second) terminal|^(?P<press>Press Ctrl-C) ",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[dict[str, Terminal]]:
    mark = secrets.token_hex(8)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CKPTCTL_STORE")}
    environment = {**ours, "CKPTCTL_STATE": str(tmp_path), MARK: mark}
    both = {name: Terminal(ROOT, environment) for name in ("first", "second")}
    yield both
    kill_marked(mark)
    for terminal in both.values():
        terminal.close()


def adapted(text: str, folder: Path) -> str:
    """Shorter, and in a folder and a run of its own: a person may be in the midst of the tutorial on this machine."""
    shorter = text.replace("6001", "2001").replace("every 5s", "every 2s")
    return shorter.replace(FOLDER, str(folder)).replace(RUN, "mine")


@pytest.mark.quiet
@pytest.mark.requires_criu
def test_the_tutorial_can_be_followed(terminals: dict[str, Terminal], tmp_path: Path) -> None:
    folder = tmp_path / "survive"
    terminal = terminals["first"]
    done = []
    for part in _PART.finditer(TUTORIAL.read_text()):
        kind, text = part["kind"], adapted(part["text"] or "", folder)
        if part["which"]:
            terminal = terminals[part["which"]]
        elif part["press"]:
            terminal.press_ctrl_c()
        elif kind == "console":
            for line in text.splitlines():
                terminal.type(line.removeprefix("# "))
                done.append(line)
        elif kind == "python":
            terminal.wait_for_prompt()
            (folder / "train.py").write_text(text)
        else:
            for line in text.splitlines():
                terminal.see(re.escape(line).replace(r"\.\.\.", ".*"))
    terminal.wait_for_prompt()
    assert sum(line.startswith("# ckptctl run ") for line in done) == 4
    assert not folder.exists()
