"""Whether a snapshot is due now, why, what it waits for, and when the next one will be.

At each look at the job: `history = observed(policy, history, observation)`, then `decide` with that history. Around
each snapshot: `history.snapshot_ended` or `history.snapshot_failed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from ckptctl.schedule import conditions
from ckptctl.schedule.alerts import Alert
from ckptctl.schedule.conditions import Hold
from ckptctl.schedule.history import GpuSample, History, went_on
from ckptctl.schedule.observation import Observation
from ckptctl.schedule.policy import Policy
from ckptctl.schedule.triggers import TICK_S, Prospect, Reason, prospects, request_reason
from ckptctl.schedule.wording import brief

_REMEMBERED_ALERTS: Final = 32


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a snapshot will be due: whichever of these comes first, but nothing within `not_before_s`."""

    in_s: float | None = None
    step: int | None = None
    epoch: int | None = None
    events: tuple[str, ...] = ()
    not_before_s: float | None = None

    @property
    def words(self) -> str:
        """`in 12m, or at step 1500`."""
        parts = [] if self.in_s is None else ["now" if self.in_s <= TICK_S else f"in {brief(self.in_s)}"]
        others = [] if self.step is None else [f"at step {self.step}"]
        others += [] if self.epoch is None else [f"at epoch {self.epoch}"]
        others += self.events
        text = ", or ".join([*parts, *others]) or "only when asked for"
        return f"{text}, but not within {brief(self.not_before_s)}" if self.not_before_s and others else text


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    `reasons` are there too where a snapshot is wanted but waits; `waits_for` says for what. `remarks` belong to the
    snapshot that is due: what about it is not as it was wished.
    """

    due: bool
    reasons: tuple[Reason, ...] = ()
    waits_for: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    outlook: Outlook = Outlook()
    alerts: tuple[Alert, ...] = ()

    @property
    def note(self) -> str:
        """All reasons and remarks in one line."""
        return "; ".join([*(reason.words for reason in self.reasons), *self.remarks])


def observed(policy: Policy, history: History, observation: Observation) -> History:
    """The history after a look at the job; to be called before `decide`."""
    history = went_on(history, observation.now_s, observation.progress)
    rule = policy.when_gpu_stable
    if rule is None or observation.under_way:
        return replace(history, gpu=(), gpu_waiting_s=None)
    if observation.gpu_used_bytes is not None:
        samples = (*history.gpu, GpuSample(observation.now_s, observation.gpu_used_bytes))
        history = replace(history, gpu=conditions.in_window(rule, samples, observation.now_s))
    reasons = _reasons(prospects(policy, history, observation))
    if not reasons or _holds(policy, history, observation, reasons):
        return replace(history, gpu_waiting_s=None)
    waiting_s = observation.now_s if history.gpu_waiting_s is None else history.gpu_waiting_s
    return replace(history, gpu_waiting_s=waiting_s)


def decide(policy: Policy, history: History, observation: Observation) -> Decision:
    """Whether a snapshot is due. A request overrides everything, but there are never two snapshots at once."""
    coming = tuple(prospects(policy, history, observation))
    reasons = _reasons(coming)
    alerts = _standing_alerts(policy, history, observation)
    if observation.requested:
        reasons = (request_reason(observation.requested), *reasons)
    if observation.under_way:
        waits_for = ("a snapshot is under way",) if reasons else ()
        return Decision(False, reasons, waits_for, outlook=Outlook(events=("after the one under way",)), alerts=alerts)
    if observation.requested:
        return Decision(True, reasons, outlook=Outlook(in_s=0.0), alerts=alerts)
    if not reasons:
        return Decision(False, outlook=_outlook(policy, history, observation, coming), alerts=alerts)
    return _decide_wanted(policy, history, observation, Decision(False, reasons, alerts=alerts))


def fresh_alerts(history: History, decision: Decision) -> tuple[Alert, ...]:
    """The alerts that nobody has been told of; follow with `told`."""
    return tuple(alert for alert in decision.alerts if alert.occasion not in history.told)


def told(history: History, alerts: tuple[Alert, ...]) -> History:
    """The history after people were told of these."""
    occasions = (*history.told, *(alert.occasion for alert in alerts))
    return replace(history, told=occasions[-_REMEMBERED_ALERTS:]) if alerts else history


def _decide_wanted(policy: Policy, history: History, observation: Observation, wanted: Decision) -> Decision:
    now_s = observation.now_s
    holds = _holds(policy, history, observation, wanted.reasons)
    alerts = wanted.alerts
    if conditions.standstill(history, observation, wanted.reasons):
        alerts = (*alerts, conditions.standstill_alert(history, observation))
    elif put_off := conditions.overhead_alert(policy, history, now_s):
        alerts = (*alerts, put_off)
    if not holds and (hold := conditions.gpu_hold(policy, history, observation)):
        holds = (hold,)
    if holds:
        waits_for = tuple(hold.words for hold in holds)
        return replace(wanted, waits_for=waits_for, outlook=_outlook_of_holds(holds, now_s), alerts=alerts)
    remark = conditions.gpu_alert(policy, history, observation)
    if remark:
        alerts = (*alerts, remark)
    remarks = (remark.words,) if remark else ()
    return replace(wanted, due=True, remarks=remarks, outlook=Outlook(in_s=0.0), alerts=alerts)


def _reasons(prospects: Iterable[Prospect]) -> tuple[Reason, ...]:
    return tuple(prospect.reason for prospect in prospects if prospect.reason)


def _holds(policy: Policy, history: History, observation: Observation, reasons: tuple[Reason, ...]) -> tuple[Hold, ...]:
    """Everything that a snapshot wanted for these reasons waits for, but for GPU memory."""
    timed = conditions.time_holds(policy, history)
    holds = [hold for hold in timed if hold.until_s is not None and hold.until_s - observation.now_s > TICK_S]
    standstill = conditions.standstill(history, observation, reasons)
    return (*holds, standstill) if standstill else tuple(holds)


def _standing_alerts(policy: Policy, history: History, observation: Observation) -> tuple[Alert, ...]:
    failed = conditions.failure_alert(history.failures, observation.now_s) if history.failures else None
    silence = conditions.silence_alert(policy, history, observation)
    return tuple(alert for alert in (failed, silence) if alert)


def _outlook(policy: Policy, history: History, observation: Observation, coming: tuple[Prospect, ...]) -> Outlook:
    """Where no trigger is due."""
    now_s = observation.now_s
    ends = [hold.until_s for hold in conditions.time_holds(policy, history) if hold.until_s is not None]
    held_s = max(0.0, max(ends, default=now_s) - now_s)
    times = [prospect.at_s for prospect in coming if prospect.at_s is not None]
    return Outlook(
        in_s=max(min(times) - now_s, held_s) if times else None,
        step=min((prospect.step for prospect in coming if prospect.step is not None), default=None),
        epoch=min((prospect.epoch for prospect in coming if prospect.epoch is not None), default=None),
        events=tuple(dict.fromkeys(prospect.event for prospect in coming if prospect.event)),
        not_before_s=held_s if held_s > TICK_S else None,
    )


def _outlook_of_holds(holds: tuple[Hold, ...], now_s: float) -> Outlook:
    """Where a snapshot is wanted: when the last of what holds it gives way."""
    events = tuple(hold.event for hold in holds if hold.event)
    times = [hold.until_s - now_s for hold in holds if hold.until_s is not None]
    if not events:
        return Outlook(in_s=max(times))
    # GPU memory has both, and is never held together with anything else: whichever comes first.
    if len(holds) == 1:
        return Outlook(in_s=times[0] if times else None, events=events)
    return Outlook(events=events, not_before_s=max(times))
