"""Modules and functions stay small enough to be read at one go."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "ckptctl").rglob("*.py"))
MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_FUNCTION = 40


def test_modules_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in PACKAGE}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_A_MODULE} == {}


def test_functions_are_small() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": size
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        # Without the signature: that of a command lists all its options.
        and (size := (node.end_lineno or 0) - node.body[0].lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert found == {}


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in PACKAGE if path.read_text().strip() and not ast.get_docstring(_parsed(path))] == []


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())
