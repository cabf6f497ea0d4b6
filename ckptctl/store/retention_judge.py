"""Which snapshots of a run are kept, and why: a pure function of what is known of them.

Rules are ORed: a snapshot stays if any of them keeps it. Each verdict carries every reason, so that it can be printed.
What must never go (`latest`, `backup`, pinned ones ...) stays under any policy, see `retention_rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ckptctl.store import retention_limits, retention_rules
from ckptctl.store.retention import Retention
from ckptctl.store.retention_verdict import Disk, Facts, Judgement, Reason, Rule, Verdict


def judge(policy: Retention, snapshots: Sequence[Facts], *, now: datetime, disk: Disk | None = None) -> Judgement:
    """What becomes of each snapshot of one run, in whatever order they come; `disk` is needed for `min_free` alone."""
    ordered = sorted(snapshots, key=lambda facts: (facts.created, facts.id))
    reasons = retention_rules.reasons(policy, ordered, now)
    unkept = (Reason(Rule.UNKEPT, "no rule keeps it"),)
    verdicts = [Verdict(facts, bool(reasons[facts.id]), reasons[facts.id] or unkept) for facts in ordered]
    return retention_limits.apply(policy, verdicts, disk)
