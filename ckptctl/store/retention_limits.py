"""Hard limits on space: what they take away of what the rules would keep, the least valuable first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from ckptctl.store.retention import Retention
from ckptctl.store.retention_rules import PROTECTING
from ckptctl.store.retention_verdict import Disk, Judgement, Reason, Rule, Unmet, Verdict
from ckptctl.units import format_size

# The least valuable first: what is kept for a crash before what is kept for long. `latest` and `backup` are not here.
_WORTH: Final = (
    Rule.DAMAGED, Rule.NO_RULES, Rule.KEEP_LAST, Rule.KEEP_WITHIN, Rule.KEEP_HOURLY, Rule.KEEP_DAILY, Rule.KEEP_WEEKLY,
    Rule.KEEP_EVERY_STEPS, Rule.KEEP_EPOCHS, Rule.KEEP_BEST, Rule.KEEP_TAG,
)  # fmt: skip


def apply(policy: Retention, verdicts: Sequence[Verdict], disk: Disk | None) -> Judgement:
    """Turn verdicts of the rules into those of rules and limits. What is protected stays, and then that is said."""
    removed: dict[str, Reason] = {}
    unmet = []
    expendable = sorted((verdict for verdict in verdicts if verdict.kept and not _protected(verdict)), key=_worth)
    for rule, excess_bytes, text in _excesses(policy, verdicts, disk):
        excess_bytes -= sum(verdict.facts.size_bytes for verdict in expendable if verdict.id in removed)
        for verdict in expendable:
            if excess_bytes > 0 and verdict.id not in removed:
                removed[verdict.id] = Reason(rule, f"removed for {text}")
                excess_bytes -= verdict.facts.size_bytes
        if excess_bytes > 0:
            unmet.append(Unmet(rule, f"{text} cannot be met: {_lacking(rule, excess_bytes)}"))
    return Judgement(tuple(_limited(verdict, removed.get(verdict.id)) for verdict in verdicts), tuple(unmet))


def _lacking(rule: Rule, excess_bytes: int) -> str:
    if rule is Rule.MIN_FREE:
        return f"{format_size(excess_bytes)} more must be free, and no other snapshot may be removed for that."
    return f"{format_size(excess_bytes)} too much is left, and nothing of it may be removed."


def _excesses(policy: Retention, verdicts: Sequence[Verdict], disk: Disk | None) -> list[tuple[Rule, int, str]]:
    """Each limit with the bytes by which what the rules keep goes over it (or under, negative)."""
    limits = []
    if policy.max_size_bytes is not None:
        kept = sum(verdict.facts.size_bytes for verdict in verdicts if verdict.kept)
        text = f"--max-size {format_size(policy.max_size_bytes)}"
        limits.append((Rule.MAX_SIZE, kept - policy.max_size_bytes, text))
    if policy.min_free is not None and disk is not None:
        freed = sum(verdict.facts.size_bytes for verdict in verdicts if not verdict.kept)
        missing = policy.min_free.wanted_bytes(disk.total_bytes) - disk.free_bytes - freed
        limits.append((Rule.MIN_FREE, missing, f"--min-free {policy.min_free}"))
    return limits


def _protected(verdict: Verdict) -> bool:
    return any(
        reason.rule in PROTECTING or (reason.rule is Rule.KEEP_BEST and reason.place == 1) for reason in verdict.reasons
    )


def _worth(verdict: Verdict) -> tuple[int, int, datetime, str]:
    """By the most valuable rule that keeps it; of the same rule the worse of the best, then the older ones, first."""
    rank, place = max((_WORTH.index(reason.rule), -reason.place) for reason in verdict.reasons)
    by_place = place if _WORTH[rank] is Rule.KEEP_BEST else 0
    return rank, by_place, verdict.facts.created, verdict.id


def _limited(verdict: Verdict, limit: Reason | None) -> Verdict:
    if limit is None:
        return verdict
    return dataclasses.replace(verdict, kept=False, reasons=(*verdict.reasons, limit))
