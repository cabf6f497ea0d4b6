"""Sizes and durations as people write them: 64MiB, 30m, 2h."""

from __future__ import annotations

import re
from typing import Final

from ckptctl.errors import UsageError

_BINARY: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DECIMAL: Final = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE: Final = re.compile(r"(\d{1,24}(?:\.\d+)?)\s*(?:([KMGTP])(iB|B)?|B)?", re.IGNORECASE)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_size(text: str) -> int:
    """Bytes of `64MiB`, `64M` (binary), `64MB` (decimal), `512` or `512B`; UsageError on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size.", hint="Write a number with a unit: 512MiB, 10G.")
    number, letter, suffix = match.groups()
    table = _DECIMAL if letter and suffix and suffix.upper() == "B" else _BINARY
    return round(float(number) * table[(letter or "").upper()])


def format_size(size_bytes: int) -> str:
    """The size with three digits and a binary unit: 1.25 GiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.5 or unit == "TiB":
            break
        value /= 1024
    if unit == "B":
        return f"{size_bytes} B"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def parse_duration(text: str) -> float:
    """Seconds of `30m`, `2h`, `1h30m`, `500ms` or a plain number of seconds; UsageError on anything else."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    parts = _DURATION_PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise UsageError(f"{text!r} is not a duration.", hint="Write a number with a unit: 90s, 30m, 1h30m.")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The duration in its two largest units: 850ms, 12.3s, 4m05s, 3h20m, 2d04h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole_seconds:02d}s"
