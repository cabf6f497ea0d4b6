"""A restore: from a snapshot to a job that runs, or to everything as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ckptctl.command import Child
from ckptctl.criu import choice, namespaces, overlay
from ckptctl.criu import restore as criu_restore
from ckptctl.criu.failures import CriuRestoreFailed
from ckptctl.criu.options import Option, Options
from ckptctl.criu.program import Criu
from ckptctl.criu.records import RestoreStats
from ckptctl.criu.restore import InheritedFd, Parent
from ckptctl.cuda.driver import CheckpointDriver
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Caution, Notice
from ckptctl.files import make_private_folder
from ckptctl.preflight import essentials
from ckptctl.preflight import gpu as gpu_gate
from ckptctl.preflight import restore as gate
from ckptctl.preflight.finding import Finding, Level, blockers, refuse
from ckptctl.preflight.gpu import GpuPlan
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.snapshot import ends, gpu_return, ids, kept, returned, rollback, stream, tails, twice
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.gpu import record_timings
from ckptctl.snapshot.labels import note_verification
from ckptctl.snapshot.outcome import JobState, Outcome
from ckptctl.snapshot.restore_request import Restored, RestoreReport, RestoreRequest, Rolled
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.standing import tree_processes
from ckptctl.snapshot.steps import Step, Timing, run_steps
from ckptctl.snapshot.verify import verify_for_restore
from ckptctl.store import journal, locks, names
from ckptctl.store.journal import Action, JournalEntry, MovedFile, Phase
from ckptctl.store.manifest import CudaTiming, Manifest, ProcessState

OVERLAY: Final = "images"
_ADDRESS_IN_USE: Final = "address-in-use"
# A connection that was closed by the side that is to be restored blocks its address for 60 s (tcp(7), TIME_WAIT).
_ADDRESS_WAITS_S: Final = (1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_LONG_S: Final = 4.0


class PidsTaken(CkptctlError):
    """Process or thread ids that the job must get back are in use."""

    code = "E_PIDS_TAKEN"
    exit_status = ExitStatus.INCOMPATIBLE


def restore(request: RestoreRequest, services: Services) -> Restored:
    """Bring the job back. Until it is seen to run, every failure leaves things as they were.

    Raises Refused, JobRuns, PidsTaken, SnapshotDamaged, Locked, NoSpace, CriuRestoreFailed, NotReturned and the
    interrupt's exceptions.
    """
    with ExitStack() as held:
        return _Restore(request, services, held).run()


class _Restore:
    """The state of one restore; each step fills in what the later ones need."""

    criu: Criu
    plan: rollback.Plan
    id: str
    stats: RestoreStats
    root: ProcessId

    def __init__(self, request: RestoreRequest, services: Services, held: ExitStack) -> None:
        self.request = request
        self.manifest = request.manifest
        self.services = services
        self.timings: list[Timing] = []
        self.warnings: list[str] = []
        self.record: journal.Record | None = None
        self.replaced: tuple[journal.ReplacedFile, ...] = ()
        self.gpu_plan = GpuPlan((), ())
        self.cuda: CheckpointDriver | None = None
        self.gpu_pids: tuple[int, ...] = ()
        self.gpu_timings: tuple[CudaTiming, ...] = ()
        self.child: Child | None = None
        self.came_up: tuple[ProcessId, ...] = ()
        self.sides = ends.Sides((), ())
        self.left_over: CkptctlError | None = None
        self.memory_read = False
        self._held = held

    def run(self) -> Restored:
        services = self.services
        self.id = names.new_id(services.now(), None, services.random_hex())
        try:
            run_steps(_STEPS, self, reporter=services.reporter, clock=services.clock, on_timing=self.timings.append)
        except CkptctlError as error:
            error.outcome = error.outcome or self._failed()
            if isinstance(error, SnapshotDamaged):
                note_verification(self.request.folder, sound=False, services=services)
            raise
        if self.memory_read:
            note_verification(self.request.folder, sound=True, services=services)
        return Restored(self._report(), self.root, self.child)

    # The steps, in order.

    def check_images(self) -> None:
        """Read every byte of the images against its digest; memory in a container is checked as criu gets it."""
        verdict = verify_for_restore(self.request.folder, self.manifest, self.services)
        if not verdict.sound:
            raise SnapshotDamaged(
                f"The snapshot {self.manifest.id} is damaged: {'; '.join(verdict.damages)}.",
                hint="Restore another one: `ckptctl list` shows what there is, `backup` is the one before the latest.",
            )

    def check(self) -> None:
        """The compatibility gate, with the plan for files that grew. Nothing is touched."""
        self.criu = self.services.find_criu()
        circumstances = gate.Circumstances(self.manifest, self.services.machine, self.criu.version)
        aside = self._beside("tails") / self.id
        self.plan = rollback.plan(self.manifest, self.request.files, aside)
        self.replaced = kept.plan(self.manifest.kept_files, self.request.folder, aside)
        findings = gate.findings(circumstances) + self.plan.findings + kept.findings(self.replaced)
        findings += self._plan_gpu()
        findings += essentials.findings(self.services.machine, self.criu, self.services.now(), restoring=True)
        refuse(findings, f"The snapshot {self.manifest.id} cannot be restored here")
        for finding in findings:
            if finding.level is Level.WARNING:
                self._warn(finding.summary, finding.check)

    def claim(self) -> None:
        """Lock the pids and wait until they are free: nothing else matters while the original still runs."""
        services, pids = self.services, self._ids()
        if not self.request.new_pid_namespace:
            twice.require_absent(self.manifest, self.request.store, services)
        held, owner = self._held.enter_context, services.owner
        wait_s, interrupt = services.lock_wait_s, services.interrupt
        wants = [locks.Want(f"pid:{pid}", locks.Intent.EXCLUSIVE) for pid in pids]
        held(locks.hold(services.host_state.locks, wants, owner, wait_s=wait_s, interrupt=interrupt))
        if self.request.store is not None:
            store, read = self.request.store, locks.Intent.READ
            held(locks.run_lock(store, self.manifest.run, read, owner, wait_s=wait_s, interrupt=interrupt))
        self._require_free_ids()

    def prepare(self) -> None:
        """Open the journal."""
        services = self.services
        make_private_folder(self._logs())
        entry = JournalEntry(
            id=self.id,
            action=Action.RESTORE,
            phase=Phase.PREPARED,
            owner=services.owner,
            tree=(),
            folder=self.request.folder.path,
            new_pid_namespace=self.request.new_pid_namespace,
            gpu=self.manifest.gpu.pids if self.manifest.gpu else (),
            gpu_map={pair.old_uuid: pair.new_uuid for pair in self.gpu_plan.pairs},
        )
        self.record = journal.begin(services.host_state.journal, entry)

    def close_journal(self) -> None:
        """The journal needs no entry any more, unless something of the restore is left."""
        if self.record is not None and self.left_over is None:
            self.record.close()

    def move_files(self) -> None:
        """Put files back as they were at the dump, what they held since kept beside the snapshot."""
        if not self.plan.cuts and not self.replaced:
            return
        self._journal().advance(Phase.MOVING_FILES, moved=self.plan.cuts, replaced=self.replaced)
        for cut in self.plan.cuts:
            self.services.interrupt.check()
            tails.cut(cut)
        for item in self.replaced:
            self.services.interrupt.check()
            kept.place(item)

    def put_files_back(self) -> None:
        """Give the files their tails again, and those in memory what they held; not under a process that lives on."""
        if self.left_over is not None:
            return
        with self._noting_what_is_left():
            try:
                kept.take_back(self.replaced)
            finally:
                for left in tails.put_back(self.plan.cuts).left:
                    text = f"{left.path} was written to meanwhile; what was behind it is kept in {left.tail}."
                    self._warn(text, "W_TAIL_KEPT")

    def bring_up(self) -> None:
        """Let criu restore the tree; again where an address is still in use, though nobody listens there.

        The kernel is then winding up connections of the job that was just killed, which takes it up to a minute.
        """
        self._journal().advance(Phase.RESTORING)
        for wait_s in (*_ADDRESS_WAITS_S, None):
            try:
                self._bring_up_once()
                break
            except CriuRestoreFailed as error:
                if wait_s is None or not error.failure.code.endswith(_ADDRESS_IN_USE):
                    raise
            if wait_s >= _LONG_S:
                text = f"The kernel still winds up a connection of the former job; tried again in {wait_s:.0f} s."
                self.services.reporter.report(Notice(text))
            control.wait_until(lambda: False, timeout_s=wait_s, interrupt=self.services.interrupt)
            self._require_free_ids()
        self._journal().advance(Phase.RESTORED, tree=tree_processes([self.root, *self.came_up]))

    def _bring_up_once(self) -> None:
        sides = ends.reconnected(self.manifest.ends, self._beside("output"), attached=self.request.attached)
        images = self._images()
        serving = stream.serving(self.request.folder, self.manifest.images, images, self._logs())
        with sides as self.sides, serving as server:
            request = self._criu_request(images, self.sides.inherited, server)
            if self.request.new_pid_namespace:
                up = namespaces.restore_in_new_pid_namespace(self.criu, request, interrupt=self.services.interrupt)
                self.root, self.stats, self.child = up.root, up.stats, up.child
                self.came_up = (up.init,)
            else:
                result = criu_restore.restore(self.criu, request, interrupt=self.services.interrupt)
                self.root, self.stats = result.root, result.stats
                self.came_up = control.walk(self.root) or (self.root,)
        self.memory_read = server is not None and server.gave_all_memory

    def take_down(self) -> None:
        """End what came up."""
        with self._noting_what_is_left():
            returned.end_all(self.came_up, self.child)

    def look(self) -> None:
        """See that every process is there, then let them run."""
        returned.require_all(self.manifest, self.root)
        returned.let_go(self.manifest, self.root)

    def has_gpu(self) -> bool:
        """Whether the job has GPU memory."""
        return self.manifest.gpu is not None

    def restore_gpu(self) -> None:
        """Move device memory back, let the CUDA processes run, and see that they do and where their memory is."""
        saved = self.manifest.gpu
        if saved is not None and self.cuda is not None:
            self.gpu_pids = returned.pids_here(saved.pids, self.root)
            timings = gpu_return.restore(self.cuda, saved, self.gpu_pids, self.gpu_plan.pairs)
            self.gpu_timings = record_timings(timings, gpu_return.bytes_by_pid(saved, self.gpu_pids))
            gpu_return.require_on_devices(saved, self.gpu_pids, self.gpu_plan, self.services.read_gpu_facts)

    def put_gpu_away(self) -> None:
        """Checkpoint the CUDA processes again: they are about to be ended."""
        if self.cuda is not None:
            gpu_return.put_away(self.cuda, self.gpu_pids)

    def finish(self) -> None:
        """The job runs: nothing is left to be repaired."""
        self._journal().close()

    # What the steps share.

    def _plan_gpu(self) -> tuple[Finding, ...]:
        """Place the job's GPUs here and open the driver that will restore them."""
        saved = self.manifest.gpu
        if saved is None:
            return ()
        self.gpu_plan = gpu_gate.plan(saved, self.services.read_gpu_facts(), self.request.gpu_map)
        if not blockers(self.gpu_plan.findings):
            self.cuda = self.services.open_cuda().require()
            self._held.callback(self.cuda.close)
        return self.gpu_plan.findings

    def _journal(self) -> journal.Record:
        assert self.record is not None
        return self.record

    def _beside(self, kind: str) -> Path:
        return self.request.folder.beside(kind)

    def _logs(self) -> Path:
        return self._beside("logs") / self.id

    def _require_free_ids(self) -> None:
        """Wait until the ids that the job must get back are free. Raises PidsTaken."""
        needed = self._ids()
        if not ids.come_free(needed, self.services.interrupt):
            raise _pids_taken(control.taken(needed))

    @contextmanager
    def _noting_what_is_left(self) -> Iterator[None]:
        """An undo that fails leaves the journal open, for a recovery to finish it."""
        try:
            yield
        except CkptctlError as error:
            self.left_over = error
            raise

    def _failed(self) -> str:
        if self.left_over is None:
            return "The job was not restored; its snapshot is as it was."
        return (
            f"The job was not restored; its snapshot is as it was. Not everything is taken back: "
            f"{self.left_over.message} `ckptctl recover` does that later."
        )

    def _ids(self) -> tuple[int, ...]:
        """The process and thread ids that must be free: none in a PID namespace of its own."""
        if self.request.new_pid_namespace:
            return ()
        return ids.ids_of(self.manifest)

    def _images(self) -> Path:
        images = self.request.folder.images
        if self.plan.accepted:
            images = overlay.with_sizes(images, dict(self.plan.accepted), self._logs() / OVERLAY)
        return images

    def _criu_request(
        self, images: Path, inherited: tuple[InheritedFd, ...], server: criu_restore.Server | None
    ) -> criu_restore.RestoreRequest:
        options = choice.with_asked(_recorded(self.manifest), self.request.criu_options).restore_words()
        return criu_restore.RestoreRequest(
            root_pid=self.manifest.tree.root_pid,
            images=images,
            logs=self._logs(),
            # Stopped, so that nothing can end, or write, before all of it was seen to be there.
            options=(*options, "--leave-stopped"),
            parent=Parent.INIT if self.request.new_pid_namespace else Parent.CALLER,
            inherit=inherited,
            server=server,
        )

    def _outcome(self) -> Outcome:
        pid, tree = self.root.pid, self.manifest.tree
        if any(one.pid == tree.root_pid and one.state is ProcessState.STOPPED for one in tree.processes):
            sentence = f"The job is back as pid {pid}, stopped as it was at the dump; kill -CONT {pid} lets it go on."
            return Outcome(pid, JobState.LEFT_STOPPED, sentence)
        return Outcome(pid, JobState.RUNNING, f"The job runs again as pid {pid}.")

    def _warn(self, text: str, code: str) -> None:
        self.warnings.append(text)
        self.services.reporter.report(Caution(text, code))

    def _report(self) -> RestoreReport:
        for side in self.sides.connected:
            self.services.reporter.report(Notice(side.sentence))
        return RestoreReport(
            id=self.manifest.id,
            run=self.manifest.run,
            folder=self.request.folder.path,
            pid=self.root.pid,
            outcome=self._outcome(),
            processes=len(self.manifest.tree.processes),
            rolled_back=tuple(_rolled(cut) for cut in self.plan.cuts),
            reconnected=tuple(side.sentence for side in self.sides.connected),
            restore_s=self.stats.restore_us / 1e6,
            timings=tuple(self.timings),
            gpu_timings=self.gpu_timings,
            warnings=tuple(self.warnings),
        )


def _rolled(cut: MovedFile) -> Rolled:
    return Rolled(cut.path, cut.size_after_bytes, cut.size_before_bytes - cut.size_after_bytes, cut.tail)


def _recorded(manifest: Manifest) -> Options:
    """The options of the dump, which criu wants again."""
    return Options(
        tuple(
            Option(item.flag, item.value, item.reason, item.on_dump, item.on_restore) for item in manifest.criu.options
        )
    )


def _pids_taken(numbers: tuple[int, ...]) -> PidsTaken:
    return PidsTaken(ids.in_use(numbers), hint=ids.REMEDY, details={"ids": list(numbers)})


_STEPS: Final = (
    Step("claim", "Waiting for the process ids", _Restore.claim),
    Step("check", "Comparing this machine with that of the dump", _Restore.check),
    Step("verify", "Checking the images", _Restore.check_images),
    Step("prepare", "Opening the journal", _Restore.prepare, undo=_Restore.close_journal),
    Step("files", "Putting files back to their size", _Restore.move_files, undo=_Restore.put_files_back),
    Step("restore", "Restoring the job", _Restore.bring_up, undo=_Restore.take_down),
    Step("look", "Looking at the job", _Restore.look),
    Step(
        "restore-gpu",
        "Moving device memory back",
        _Restore.restore_gpu,
        undo=_Restore.put_gpu_away,
        when=_Restore.has_gpu,
    ),
    Step("finish", "Closing the journal", _Restore.finish),
)
