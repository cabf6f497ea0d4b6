"""Every check that the code can name is on the page that lists them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What findings and checks are made by; the name comes first.
_MAKERS = {"Finding", "Check", "MachineCheck", "Question", "Described", "_error", "_warning"}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and _NAME.fullmatch(first.value):
                yield first.value


def test_every_check_is_listed() -> None:
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/reference/checks.md").read_text(), re.MULTILINE))
    found = {name for path in (ROOT / "ckptctl").rglob("*.py") for name in names_in(path)}
    assert len(found) > 60
    assert found - listed == set()
