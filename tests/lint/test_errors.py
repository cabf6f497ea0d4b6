"""The tree of errors: scripts rely on its codes and exit statuses, people on its hints."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ckptctl
from ckptctl.errors import CkptctlError, ExitStatus

ROOT = Path(__file__).parents[2]


def all_errors() -> list[type[CkptctlError]]:
    """Every error class of the package, after importing all of it."""
    for module in pkgutil.walk_packages(ckptctl.__path__, "ckptctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    public = {error for error in _below(CkptctlError) if not error.__name__.startswith("_")}
    return sorted(public, key=lambda error: error.__name__)


def _below(kind: type[CkptctlError]) -> Iterator[type[CkptctlError]]:
    for child in kind.__subclasses__():
        if child.__module__.startswith("ckptctl."):
            yield child
        yield from _below(child)


def test_codes_are_unique_and_of_one_form() -> None:
    codes = Counter([CkptctlError.code, *(error.code for error in all_errors())])
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code in codes if not re.fullmatch(r"E_[A-Z][A-Z0-9_]+", code)] == []


def test_each_says_what_it_means_and_how_the_command_ends() -> None:
    for error in all_errors():
        assert "code" in vars(error), f"{error.__name__} has no code of its own"
        assert isinstance(error.exit_status, ExitStatus), error.__name__
        assert error.exit_status is not ExitStatus.DONE, error.__name__
        assert (error.__doc__ or "").strip().endswith("."), f"{error.__name__} has no sentence as docstring"


def test_messages_tell_what_to_do_next() -> None:
    # An error with a constructor of its own has its hint from there.
    plain = {error.__name__ for error in all_errors() if error.__init__ is CkptctlError.__init__}
    without = sorted(_raised_without_hint(plain - set(_NEED_NO_HINT)))
    assert without == []


# What the reader did, or what says by itself all there is to do.
_NEED_NO_HINT = {
    "Interrupted": "the user asked for it",
    "Terminated": "the user asked for it",
}


def _raised_without_hint(names: set[str]) -> Iterator[str]:
    for path in sorted((ROOT / "ckptctl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                call = node.exc
                given = {keyword.arg for keyword in call.keywords}
                if node.exc.func.id in names and not given & {"hint", None}:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {node.exc.func.id}"
