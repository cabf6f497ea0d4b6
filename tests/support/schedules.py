"""A job under a schedule, on a clock that is a plain number."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptctl.schedule.decision import Decision, decide, observed
from ckptctl.schedule.history import History, Taken, resumed, snapshot_ended, snapshot_failed, started
from ckptctl.schedule.observation import Observation, Request
from ckptctl.schedule.parse import PolicyWords, parse_policy
from ckptctl.schedule.policy import Policy
from ckptctl.store.manifest import Progress


@dataclass(frozen=True)
class Snapshot:
    """One that was taken, or that failed."""

    began_s: float
    ended_s: float
    progress: Progress
    note: str
    good: bool


@dataclass
class Supervised:
    """The loop of a supervisor around a job that makes `steps_per_s`; `pass_time` runs it.

    The job stands still for `pause_s` of each snapshot, which is complete after `duration_s`.
    """

    policy: Policy
    now_s: float = 1000.0
    step: float | None = 0.0
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    gpu_used_bytes: int | None = None
    steps_per_s: float = 1.0
    pause_s: float = 2.0
    duration_s: float = 5.0
    fails: bool = False
    snapshots: list[Snapshot] = field(default_factory=list)
    history: History = field(init=False)
    decision: Decision = field(init=False)

    def __post_init__(self) -> None:
        self.history = started(self.now_s)
        self.look()

    def progress(self) -> Progress:
        return Progress(None if self.step is None else int(self.step), self.epoch, dict(self.metrics))

    def look(self, requested: Request | None = None, under_way: bool = False) -> Decision:
        """One round of the loop, without acting on it."""
        observation = Observation(self.now_s, self.progress(), self.gpu_used_bytes, requested, under_way)
        self.history = observed(self.policy, self.history, observation)
        self.decision = decide(self.policy, self.history, observation)
        return self.decision

    def act(self, requested: Request | None = None) -> Decision:
        """One round of the loop, with the snapshot where one is due."""
        decision = self.look(requested)
        if decision.due:
            self.take(decision.note)
        return decision

    def take(self, note: str = "") -> None:
        """A snapshot, whatever the schedule says."""
        began_s, progress = self.now_s, self.progress()
        self.now_s += self.duration_s
        self._work(max(0.0, self.duration_s - self.pause_s))
        if self.fails:
            self.history = snapshot_failed(self.history, self.now_s, "criu failed.")
        else:
            taken = Taken(began_s, self.now_s, progress, self.pause_s)
            self.history = snapshot_ended(self.policy, self.history, taken)
        self.snapshots.append(Snapshot(began_s, self.now_s, progress, note, not self.fails))

    def pass_time(self, seconds: float, tick_s: float = 1.0) -> None:
        """The supervisor looks every `tick_s` and acts."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-6:
            self.now_s += tick_s
            self._work(tick_s)
            self.act()

    def resume(self, step: int | None, epoch: int | None = None, metrics: dict[str, float] | None = None) -> None:
        """The job is restored from a snapshot with this progress."""
        self.step, self.epoch, self.metrics = step, epoch, dict(metrics or {})
        self.history = resumed(self.policy, self.history, self.now_s, self.progress())

    def steps(self) -> list[int | None]:
        """The steps of all good snapshots."""
        return [snapshot.progress.step for snapshot in self.snapshots if snapshot.good]

    def gaps(self) -> list[float]:
        """Seconds from the end of each snapshot to the begin of the next, the first from the start."""
        ends = [1000.0, *(snapshot.ended_s for snapshot in self.snapshots)]
        return [snapshot.began_s - end for end, snapshot in zip(ends, self.snapshots, strict=False)]

    def _work(self, seconds: float) -> None:
        if self.step is not None:
            self.step += self.steps_per_s * seconds


def policy_of(*every: str, **words: object) -> Policy:
    """The policy of these options: `policy_of("30m", min_interval="5m")`."""
    return parse_policy(PolicyWords(every=every, **words))  # type: ignore[arg-type]
