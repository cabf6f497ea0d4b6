"""What `run` and `watch` keep where nothing is said about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support import CommandLine

pytestmark = pytest.mark.requires_criu

JOB = "import time\nfor step in range(1, 10_000):\n    print(f'step {step}', flush=True)\n    time.sleep(0.02)\n"


@pytest.mark.parametrize(("words", "kept"), [((), 10), (("--keep-last", "all"), 13), (("--max-size", "1TiB"), 13)])
def test_the_newest_ten(words: tuple[str, ...], kept: int, ckptctl: CommandLine, tmp_path: Path) -> None:
    """A run that ends itself after thirteen snapshots."""
    after = tmp_path / "after"
    after.write_text(
        "#!/bin/sh\n"
        f"echo >> {tmp_path}/taken\n"
        f"[ $(wc -l < {tmp_path}/taken) -lt 13 ] || kill -USR2 $(pgrep -o -f '^{sys.executable} -c import time')\n"
    )
    after.chmod(0o755)
    run = ["run", "--run", "gpt", "--every", "0.1s", "--hook-after", str(after), *words]
    ckptctl(*run, "--", sys.executable, "-c", JOB).check(128 + 12)
    assert len(ckptctl.json("list")["result"]) == kept
