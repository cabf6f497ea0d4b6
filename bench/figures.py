"""What is made of single measurements: medians, medians of ratios, and a line through points."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

median = statistics.median


def median_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """The median of the ratios within the pairs: a machine that is slow for a while is so for both."""
    return statistics.median(one / other for one, other in pairs)


def line(points: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of the line through points (x, y), by least squares."""
    fitted = statistics.linear_regression(*zip(*points, strict=True))
    return fitted.intercept, fitted.slope
