"""How far apart snapshots should be, from what they cost: Young's and Daly's interval, and a limit to the overhead."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Final

from ckptctl.schedule.history import History
from ckptctl.schedule.policy import ASSUMED_MTBF_S, EveryAuto, Policy

# The first snapshot measures the cost, and shows early whether the job can be dumped.
FIRST_AUTO_S: Final = 600.0
# Below this the disk, which the formula knows nothing of, would be written to without a break.
LEAST_AUTO_S: Final = 60.0


def daly_interval_s(cost_s: float, mtbf_s: float) -> float:
    """Work between the end of one snapshot and the start of the next that loses the least time on average.

    Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps" (2006); its first term is
    Young's formula of 1974.
    """
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    ratio = cost_s / (2 * mtbf_s)
    return math.sqrt(2 * cost_s * mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s


def mean_pause_s(history: History) -> float | None:
    """How long a snapshot stops the job, on average of the last ones; None before the first."""
    return fmean(cost.pause_s for cost in history.costs) if history.costs else None


def auto_interval_s(interval: EveryAuto, history: History) -> float:
    """The interval of `--every auto` by what is known now."""
    mtbf_s = interval.mtbf_s or ASSUMED_MTBF_S
    pause_s = mean_pause_s(history)
    if pause_s is None:
        return min(FIRST_AUTO_S, mtbf_s / 10)
    return max(LEAST_AUTO_S, daly_interval_s(pause_s, mtbf_s))


def overhead_spacing_s(policy: Policy, history: History) -> float:
    """How long the job must run between snapshots so that its pauses take no more than the share allowed."""
    pause_s = mean_pause_s(history)
    if policy.max_overhead is None or pause_s is None:
        return 0.0
    return pause_s * (1 - policy.max_overhead) / policy.max_overhead
