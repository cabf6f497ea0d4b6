"""Sizes and durations: what is written can be read back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptctl.errors import UsageError
from ckptctl.units import format_duration, format_size, parse_duration, parse_size

DURATIONS = {
    0: "0ms", 0.0004: "0ms", 0.85: "850ms", 0.9996: "1.0s", 1: "1.0s", 12.34: "12.3s", 59.94: "59.9s", 59.96: "1m00s",
    60: "1m00s", 245: "4m05s", 3599.4: "59m59s", 3599.6: "1h00m", 12000: "3h20m", 86399: "23h59m", 86400: "1d00h",
    187200: "2d04h", 40 * 86400: "40d00h",
}  # fmt: skip
SIZES = {
    0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.00 KiB", 10235: "10.0 KiB", 1536: "1.50 KiB", 102398: "100 KiB",
    (1 << 20) - 1: "1.00 MiB", 1 << 20: "1.00 MiB", 34 << 20: "34.0 MiB", 500 << 30: "500 GiB", 1 << 40: "1.00 TiB",
    5000 << 40: "5000 TiB",
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("size_bytes", "text"), SIZES.items())
def test_sizes_have_three_digits(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.floats(min_value=0, max_value=10 * 365 * 86400))
@example(59.95)
@example(3599.5)
@example(86399.5)
def test_a_duration_can_be_read_back(seconds: float) -> None:
    text = format_duration(seconds)
    smallest = {"ms": 0.001, "s": 0.1 if "." in text else 1, "m": 60, "h": 3600}
    unit = "ms" if text.endswith("ms") else text[-1]
    assert abs(parse_duration(text) - seconds) <= smallest[unit]


@given(st.integers(min_value=0, max_value=1 << 59))
@example((1 << 20) - 1)
@example((1 << 30) - 1)
def test_a_size_can_be_read_back(size_bytes: int) -> None:
    text = format_size(size_bytes)
    assert len(text.split()[0].replace(".", "")) <= 4 or text.endswith("TiB")
    assert parse_size(text) == pytest.approx(size_bytes, rel=0.006)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e9))
def test_a_plain_number_is_seconds(seconds: float) -> None:
    assert parse_duration(f"{seconds:f}") == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("512", 512), ("512B", 512), ("64M", 64 << 20), ("64MiB", 64 << 20), ("64MB", 64 * 10**6), (" 1.5g ", 3 << 29)],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172800), ("0", 0)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=12))
@example("-1")
@example("1h 30m")
@example("1e3")
@example("٣s")
@example("inf")
@example("9" * 400)
def test_anything_else_is_refused(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except UsageError as error:
            assert error.hint
