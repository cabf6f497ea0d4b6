"""Times as notices write them, in Unix time; None for what is no time."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime


def iso_time_s(text: str) -> float | None:
    """`2026-11-21T09:00:43Z`; without a zone nobody knows when that is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def mail_time_s(text: str) -> float | None:
    """`21 Jan 2026 09:00:43 GMT`, with a day of the week or without."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
