"""Groups of options that several commands share: a frozen dataclass whose fields are options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def grouped(command: Callable[..., int]) -> Callable[..., int]:
    """A command for Typer in which each parameter that is a dataclass of options is spelled out as its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {name: hint for name, hint in hints.items() if _is_group(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        group = groups.get(name)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=types[one.name])
            for one in fields(group)
        ]

    @wraps(command)
    def spelled_out(**given: Any) -> int:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        return command(**given)

    spelled_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spelled_out.__annotations__ = {one.name: one.annotation for one in parameters}
    return spelled_out


def words_of(group: Any) -> tuple[str, ...]:
    """The words of a command line that set the options of a group to these values; what is as by default needs none.

    An option is called as its field, with dashes.
    """
    words: list[str] = []
    for one in fields(group):
        value = getattr(group, one.name)
        if value == one.default:
            continue
        name = f"--{one.name.replace('_', '-')}"
        many = value if isinstance(value, list) else [value]
        if isinstance(value, bool):
            words.append(name if value else name.replace("--", "--no-", 1))
        else:
            words += [f"{name}={item}" for item in many]
    return tuple(words)


def _is_group(hint: object) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)
