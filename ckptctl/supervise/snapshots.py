"""Taking a snapshot of a supervised job, with what belongs to it: hooks before and after, and the retention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Event, Reporter
from ckptctl.host.machine import read_machine
from ckptctl.interrupt import Never
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot.dump_request import DumpReport, DumpRequest, StoreTarget
from ckptctl.snapshot.estimate import GPU_PAUSE
from ckptctl.snapshot.remove import remove
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.ways import Way
from ckptctl.store import manifest_json
from ckptctl.store.layout import Store
from ckptctl.store.manifest import Progress
from ckptctl.store.retention import Retention
from ckptctl.supervise.hooks import HookEvent, HookFacts, HookOutcome, HookResult, Hooks
from ckptctl.supervise.job import ended_inside, has_ended_in
from ckptctl.supervise.limited import never

# Another ckptctl that works on the job or in its run, to forget snapshots say, is waited for this long at the least.
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """A snapshot that is to be taken. `last`: the job ends with it, and no hook may prevent it.

    `progress` is that of the decision; `read_progress` tells how far the job is when it stands still.
    `limit_s` is the time left for hooks, None where there is no hurry; they are ended when `give_up` says so.
    """

    reason: str
    progress: Progress
    read_progress: Callable[[], Progress]
    last: bool = False
    limit_s: float | None = None
    give_up: Callable[[], bool] = never


@dataclass(frozen=True, slots=True)
class Manner:
    """How snapshots of a run are taken and which are kept."""

    retention: Retention
    tags: tuple[str, ...] = ()
    criu_options: tuple[str, ...] = ()
    gpu_lock_timeout_s: float = 60.0
    way: Way = field(default_factory=Way)


class Prevented(CkptctlError):
    """The hook that runs before a snapshot has failed, so none was taken."""

    code = "E_HOOK_PREVENTED"


class GaveWay(CkptctlError):
    """The hook that runs before a snapshot was ended because the job is to end, so none was taken."""

    code = "E_HOOK_GAVE_WAY"


def paused_s(report: DumpReport) -> float:
    """How long the job stood still, moving GPU memory included."""
    if report.gpu is None:
        return report.frozen_s
    return sum(one.seconds for one in report.timings if one.name in GPU_PAUSE)


class Once:
    """A reporter that passes each caution on once: what is odd about a job is so at every snapshot."""

    def __init__(self, outer: Reporter) -> None:
        self._outer = outer
        self._said: set[str] = set()

    def report(self, event: Event) -> None:
        """Pass the event on, unless it is a caution that was said before."""
        if isinstance(event, Caution):
            if event.text in self._said:
                return
            self._said.add(event.text)
        self._outer.report(event)

    def close(self) -> None:
        """Nothing was held."""


class Snapshots:
    """Takes the snapshots of one run."""

    def __init__(self, store: Store, run: str, manner: Manner, hooks: Hooks, services: Services) -> None:
        self._store = store
        self._run = run
        self._manner = manner
        self._hooks = hooks
        self._services = services
        self._reporter = Once(services.reporter)

    def take(self, root: ProcessId, order: Order) -> DumpReport:
        """Save the tree; it goes on, or ends if it is the last. The hooks run around it.

        Raises Prevented, GaveWay, EndedInside and what snapshot.dump.dump raises: the job then runs on, unless it is a
        JobLost.
        """
        from ckptctl.snapshot.dump import dump

        facts = HookFacts(run=self._run, pid=root.pid, reason=order.reason, step=order.progress.step, last=order.last)
        before = self._run_hook(HookEvent.BEFORE, facts, order)
        if before.prevents_snapshot:
            if before.outcome is HookOutcome.GIVEN_UP:
                raise GaveWay(before.words, hint="The job is saved as it ends.")
            raise Prevented(before.words, hint="Mend the hook; the next snapshot is tried when it is due.")
        request = DumpRequest(
            pid=root.pid,
            target=StoreTarget(self._store, self._run),
            leave_running=not order.last,
            read_progress=order.read_progress,
            tags=self._manner.tags,
            note=order.reason,
            gpu_lock_timeout_s=self._manner.gpu_lock_timeout_s,
            criu_options=self._manner.criu_options,
            way=self._manner.way,
        )
        try:
            report = dump(request, self.services())
            self._require_alive_inside(report)
        except CkptctlError as error:
            facts = dataclasses.replace(facts, error_code=error.code, error=error.message)
            self._run_hook(HookEvent.FAILURE, facts, order)
            raise
        facts = dataclasses.replace(facts, snapshot=report.folder, snapshot_id=report.id)
        self._run_hook(HookEvent.AFTER, facts, order)
        return report

    def _require_alive_inside(self, report: DumpReport) -> None:
        """Remove a snapshot with which nobody could go on. Raises EndedInside."""
        folder = self._store.run(self._run).snapshot(report.id)
        if has_ended_in(manifest_json.read(folder.manifest).tree):
            # Where it cannot be removed, the next resume passes over it.
            with suppress(CkptctlError):
                remove(self._store, report.id, self._run, force=True, services=self.services())
            raise ended_inside(report.id)

    def services(self) -> Services:
        """For one dump or restore: with the facts of the machine as they are now, and not to be cut off by signals.

        A signal is looked at once the snapshot is complete: it may be the reason to be glad of it.
        """
        wait_s, fresh = max(self._services.lock_wait_s, _PATIENCE_S), read_machine()
        # Those of criu's file, which do not change, were added when the services were made.
        machine = dataclasses.replace(fresh, capabilities=fresh.capabilities | self._services.machine.capabilities)
        return dataclasses.replace(
            self._services, machine=machine, interrupt=Never(), reporter=self._reporter, lock_wait_s=wait_s
        )

    def _run_hook(self, event: HookEvent, facts: HookFacts, order: Order) -> HookResult:
        """Run the hook of this event; what goes wrong with it is said, unless it is why there is no snapshot."""
        result = self._hooks.run(event, facts, limit_s=order.limit_s, give_up=order.give_up)
        if not (result.ok or result.prevents_snapshot):
            self._services.reporter.report(Caution(result.words, "W_HOOK"))
        return result
