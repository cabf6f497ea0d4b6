"""The tutorial, typed in word for word; only the training is shorter."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-dump.md"
FOLDER = "/tmp/first-dump"
# What a reader does without being told how: wait until something can be seen.
_WAIT = 'until [ "$(cat /tmp/first-dump/train.log 2>/dev/null | wc -l)" -ge 20 ]; do sleep 0.1; done'


def commands(folder: Path, example: Path) -> list[str]:
    """What a reader types, in a folder of its own: a person may be in the midst of the tutorial on this machine."""
    text = TUTORIAL.read_text().replace("examples/train.py", str(example))
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("# ").replace("3000", "300") for block in blocks for line in block.splitlines()]
    assert sum(line.startswith("ckptctl ") for line in lines) == 3
    typed = [part for line in lines for part in ([line, _WAIT] if line.startswith("setsid") else [line])]
    return [line.replace(FOLDER, str(folder)) for line in typed]


@pytest.mark.quiet
@pytest.mark.requires_criu
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    folder, example = tmp_path / "first-dump", tmp_path / "train.py"
    shutil.copy(ROOT / "examples" / "train.py", example)
    # From a file: `pgrep -f` would find a shell that has all of it on its command line.
    script = tmp_path / "typed"
    script.write_text("\n".join(["set -e", *commands(folder, example)]))
    done = subprocess.run(
        ["bash", script], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gone" in said
    assert said[-1] == "equal"
    assert not folder.exists()
