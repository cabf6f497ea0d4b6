"""Frozen dataclasses to JSON and back, strictly: what comes in is checked against the type of every field.

The shapes on disk are those of record classes that exist for the disk alone. A field's type may be str, int, float,
bool, datetime, Path, an enum of strings, another record, `X | None`, `tuple[X, ...]` or `Mapping[str, X]`;
`Annotated` adds a `Range` for numbers and a sentence for the reference. A record's `__post_init__` may refuse its
values with a ValueError. Fields that a record does not know are passed over, so that later versions can add some;
a field that may be absent has a default.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

T = TypeVar("T")
Decoder = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a field may hold, both ends included."""

    low: int
    high: int


Size = Annotated[int, Range(0, 2**63 - 1)]
Count = Annotated[int, Range(0, 2**63 - 1)]
# PID_MAX_LIMIT of the kernel; 0 would mean "my own process group" to kill(2), and is never a process of a tree.
Pid = Annotated[int, Range(1, 4 * 1024 * 1024)]
Descriptor = Annotated[int, Range(0, 2**31 - 1)]
UserId = Annotated[int, Range(0, 2**32 - 1)]

_ANY_INTEGER: Final = Range(-(2**63), 2**64 - 1)
# JSON has no such numbers, and a loss that became NaN is just what one wants to see later.
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Misshapen(ValueError):
    """Something in a JSON document is not as it must be; `where` is the way to it: `tree.processes[3].pid`."""

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where

    def inside(self, segment: str) -> Misshapen:
        """The same problem seen from one level further out."""
        glue = "." if self.where and not self.where.startswith("[") else ""
        return Misshapen(self.problem, f"{segment}{glue}{self.where}")

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem


def dumps(record: object, **extra: object) -> bytes:
    """The record as an indented JSON document with the fields of `extra` before its own; ASCII, ends with a newline.

    ASCII, because bytes that are no UTF-8 come out of the file system as lone surrogates, which only escapes can carry.
    """
    document = {**extra, **cast(dict[str, object], encode(record))}
    return json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def loads(data: bytes) -> dict[str, object]:
    """The JSON object in `data`; Misshapen for anything else."""
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise Misshapen("nested too deeply") from error
    except Misshapen:
        raise
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Misshapen(f"no JSON: {error}") from error
    except ValueError as error:  # Python reads no integer of more than 4300 digits
        raise Misshapen("holds a number that is too long") from error
    if not isinstance(document, dict):
        raise Misshapen(f"expected an object, found {_kind(document)}")
    return document


def encode(value: object) -> object:
    """A record, or a value of one of its fields, as what the json module writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return str(value) if isinstance(value, (Path, StrEnum)) else value


def decode(record: type[T], raw: object) -> T:
    """The record that `raw`, as the json module read it, describes; Misshapen where it does not."""
    return cast(T, _decoder(cast(Any, record))(raw))


def describe_fields(record: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, type, sentence) of every field below `record`, for the reference: `tree.processes[].pid`."""
    for name, hint in _hints(record).items():
        bare, notes = _split(hint)
        path = f"{prefix}{name}"
        yield path, _type_name(bare), next((note for note in notes if isinstance(note, str)), "")
        inner, suffix = _innermost(bare)
        if dataclasses.is_dataclass(inner):
            yield from describe_fields(cast(type, inner), f"{path}{suffix}.")


@cache
def _decoder(hint: Any) -> Decoder:
    bare, notes = _split(hint)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin in (typing.Union, types.UnionType):
        return _optional(_decoder(_with(next(kind for kind in arguments if kind is not type(None)), notes)))
    if origin is tuple:
        return _sequence(_decoder(arguments[0]))
    if origin is Mapping:
        return _mapping(_decoder(arguments[1]))
    if dataclasses.is_dataclass(bare):
        return _object(cast(type, bare))
    if bare is int:
        return _integer(next((note for note in notes if isinstance(note, Range)), _ANY_INTEGER))
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return _member(bare)
    return _SCALARS[bare]


def _object(record: type) -> Decoder:
    fields = dataclasses.fields(record)
    hints = _hints(record)
    decoders = {field.name: _decoder(hints[field.name]) for field in fields}
    required = {
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def decode_object(raw: object) -> object:
        members = _expect(raw, dict, "an object")
        values = {}
        for name, decoder in decoders.items():
            if name in members:
                try:
                    values[name] = decoder(members[name])
                except Misshapen as error:
                    raise error.inside(name) from None
            elif name in required:
                raise Misshapen("is missing", name)
        try:
            return record(**values)
        except Misshapen:
            raise
        except ValueError as error:
            raise Misshapen(str(error)) from error

    return decode_object


def _sequence(item: Decoder) -> Decoder:
    def decode_sequence(raw: object) -> object:
        values = []
        for number, member in enumerate(_expect(raw, list, "a list")):
            try:
                values.append(item(member))
            except Misshapen as error:
                raise error.inside(f"[{number}]") from None
        return tuple(values)

    return decode_sequence


def _mapping(item: Decoder) -> Decoder:
    def decode_mapping(raw: object) -> object:
        values = {}
        for key, member in _expect(raw, dict, "an object").items():
            try:
                values[cast(str, _text(key))] = item(member)
            except Misshapen as error:
                raise error.inside(f"[{key!a}]") from None
        return values

    return decode_mapping


def _optional(inner: Decoder) -> Decoder:
    return lambda raw: None if raw is None else inner(raw)


def _integer(allowed: Range) -> Decoder:
    def decode_integer(raw: object) -> object:
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise Misshapen(f"expected a whole number, found {_kind(raw)}")
        if not allowed.low <= raw <= allowed.high:
            raise Misshapen(f"expected a number from {allowed.low} to {allowed.high}")
        return raw

    return decode_integer


def _member(enum: type[StrEnum]) -> Decoder:
    def decode_member(raw: object) -> object:
        text = cast(str, _text(raw))
        try:
            return enum(text)
        except ValueError:
            known = ", ".join(enum)
            raise Misshapen(f"expected one of {known}; found {text[:40]!a}") from None

    return decode_member


def _text(raw: object) -> object:
    text = cast(str, _expect(raw, str, "a string"))
    if "\0" in text:
        raise Misshapen("a string must not hold a NUL")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Misshapen("holds characters that no file name or text can hold") from None
    return text


def _path(raw: object) -> object:
    return Path(cast(str, _text(raw)))


def _truth(raw: object) -> object:
    return _expect(raw, bool, "true or false")


def _float(raw: object) -> object:
    if isinstance(raw, str) and raw in _NOT_FINITE:
        return _NOT_FINITE[raw]
    if not isinstance(raw, (int, float)) or isinstance(raw, bool):
        raise Misshapen(f"expected a number, found {_kind(raw)}")
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise Misshapen("the number is too large")
    return value


def _moment(raw: object) -> object:
    text = cast(str, _text(raw))
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Misshapen(f"expected a time such as 2026-11-20T19:30:00Z, found {text[:40]!a}") from None


_SCALARS: Final[dict[object, Decoder]] = {str: _text, bool: _truth, float: _float, datetime: _moment, Path: _path}
_TYPE_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", datetime: "time", Path: "path"}


def _expect(raw: object, kind: type, name: str) -> Any:
    if not isinstance(raw, kind):
        raise Misshapen(f"expected {name}, found {_kind(raw)}")
    return raw


def _kind(raw: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return "nothing" if raw is None else names.get(type(raw), "a number")


def _refuse_constant(name: str) -> object:
    raise Misshapen(f"the bare word {name} is no JSON")


@cache
def _hints(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record, include_extras=True)


def _split(hint: Any) -> tuple[Any, tuple[object, ...]]:
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def _with(hint: Any, notes: tuple[object, ...]) -> Any:
    return Annotated[(hint, *notes)] if notes else hint


def _innermost(bare: Any) -> tuple[Any, str]:
    """The record type inside a tuple or an optional, and how a path says so."""
    arguments = [kind for kind in typing.get_args(bare) if kind not in (type(None), ...)]
    if not arguments:
        return bare, ""
    suffix = "[]" if typing.get_origin(bare) is tuple else ""
    inner, deeper = _innermost(_split(arguments[-1])[0])
    return inner, suffix + deeper


def _type_name(hint: Any) -> str:
    bare, _ = _split(hint)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin in (typing.Union, types.UnionType):
        return f"{_type_name(next(kind for kind in arguments if kind is not type(None)))} or null"
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is Mapping:
        return f"object of {_type_name(arguments[1])}"
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return " | ".join(f'"{member}"' for member in bare)
    return _TYPE_NAMES.get(bare, "object")
