"""The place of a fact that could not be had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unknown:
    """`reason` says in a sentence why it could not."""

    reason: str
