"""The steps of a dump, and what they share. See ckptctl.snapshot.dump."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from ckptctl.criu import choice, namespaces
from ckptctl.criu import dump as criu_dump
from ckptctl.criu.dump import Leave
from ckptctl.criu.options import Options
from ckptctl.criu.program import Criu
from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Progress
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.preflight import tree as tree_checks
from ckptctl.preflight.finding import Level, refuse
from ckptctl.process import memory
from ckptctl.process.identity import NoSuchProcess, identify
from ckptctl.process.member import State, read_environment
from ckptctl.process.tree import KernelThread, Tree, read_tree
from ckptctl.snapshot import failures, gpu, gpu_cautions, kept, neighbours, space, standing, stream
from ckptctl.snapshot.alone import alone_with
from ckptctl.snapshot.dump_request import DumpReport, DumpRequest, StoreTarget
from ckptctl.snapshot.former import newest_with_container
from ckptctl.snapshot.gpu_steps import GpuSteps
from ckptctl.snapshot.outcome import JobLost, JobState, Outcome, after_failed_dump
from ckptctl.snapshot.preload import preload
from ckptctl.snapshot.reached import Reached
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.steps import Step, Timing, run_steps
from ckptctl.snapshot.ways import Layout
from ckptctl.store import journal, links, locks, names, staging
from ckptctl.store.journal import Action, JournalEntry, Phase
from ckptctl.store.layout import SnapshotFolder

if TYPE_CHECKING:
    from ckptctl.criu.records import DumpStats, Images
    from ckptctl.snapshot import describe
    from ckptctl.store import manifest
    from ckptctl.store.catalog import Entry


class Dump(GpuSteps):
    """One dump; each step fills in what the later ones need. `held` is closed by the caller, whatever `run` raises."""

    tree: Tree
    criu: Criu
    options: Options
    reached: Reached
    bytes_to_keep: int | None
    run_name: str
    id: str
    stats: DumpStats
    described: manifest.Manifest

    def __init__(self, request: DumpRequest, services: Services, held: ExitStack) -> None:
        self.request = request
        self.services = services
        self.created = services.now()
        self.timings: list[Timing] = []
        self.warnings: list[str] = []
        self.gpu: gpu.GpuJob | None = None
        self.gpu_failure: CkptctlError | None = None
        self.staging: staging.Staging | None = None
        self.taking: stream.Taking | None = None
        self.record: journal.Record | None = None
        self.kept_files: tuple[manifest.KeptFile, ...] = ()
        self._held = held
        memory.forget_peak()

    def run(self) -> DumpReport:
        """Take the snapshot. Raises as `ckptctl.snapshot.dump.dump`."""
        try:
            run_steps(
                _STEPS,
                self,
                reporter=self.services.reporter,
                clock=self.services.clock,
                on_timing=self.timings.append,
            )
        except CkptctlError as error:
            raise self._with_outcome(error) from error
        if self.gpu_failure:
            folder = self._staged().final.path
            raise JobLost(
                f"The job was saved, but its GPU memory could not be given back to it: {self.gpu_failure.message}",
                hint=f"End it and restore it: kill -9 {' '.join(map(str, self.tree.pids))}; ckptctl restore {folder}",
                details=self.gpu_failure.details,
                outcome=f"The snapshot {folder} is complete.",
            )
        return self._report()

    # The steps, in order.

    def look(self) -> None:
        """Identify and lock the tree, gather its facts, refuse what cannot be dumped. Nothing is touched."""
        self._held.enter_context(alone_with(self.request.pid, self.services))
        self.tree = read_tree(self.request.pid)
        self.gpu = gpu.detect(self.tree, self.request.cuda, self.services.open_cuda, self.services.read_gpu_facts)
        if self.gpu is not None:
            self._held.callback(self.gpu.driver.close)
        checked = tree_checks.findings(self.tree, self.services.machine)
        findings = gpu.blockers(self.tree, self.gpu, checked) + gpu_cautions.findings(self.tree, self.gpu)
        refuse(findings, f"The job {self.tree.root.label} cannot be dumped")
        self._require_gpu_room()
        for finding in findings:
            if finding.level is Level.WARNING:
                self._warn(finding.summary, finding.check)
        self.criu = self.services.find_criu()
        self.bytes_to_keep = kept.bytes_to_keep(self.tree)
        self.options = choice.choose_options(self.tree, self.services.machine, self.request.criu_options)

    def prepare(self) -> None:
        """Open a staging folder and the journal, and see that there is room."""
        loading = preload()
        services, target = self.services, self.request.target
        self.reached = Reached(self.request.progress, self.request.read_progress)
        self.id = names.new_id(self.created, self.reached.at_freeze.step, services.random_hex())
        self.run_name = names.run_name_from(self.tree.root.command_line)
        held, owner = self._held.enter_context, services.owner
        wait_s, interrupt = services.lock_wait_s, services.interrupt
        if isinstance(target, StoreTarget):
            self.run_name = names.check_run_name(target.run or self.run_name)
            append = locks.Intent.APPEND
            held(locks.run_lock(target.store, self.run_name, append, owner, wait_s=wait_s, interrupt=interrupt))
            self.staging = staging.place_in_store(target.store, self.run_name, self.id)
            if target.run is None and (other := neighbours.of_another_job(target.store, self.run_name, self.tree)):
                self._warn(other, "W_OTHER_JOB")
        else:
            self.staging = staging.place_beside(target.folder, self.id)
        self.record = journal.begin(services.host_state.journal, self._entry(self.staging))
        staging.create(self.staging)
        device_bytes = self.gpu.total_bytes if self.gpu else 0
        space.require(self.staging.folder.path.parent, space.needed_bytes(self.tree, device_bytes))
        if self.request.way.layout is Layout.STREAM:
            wanted = self.tree.estimated_bytes + device_bytes if self.request.leave_running else 0
            room = stream.Room(wanted, services.machine.memory_available_bytes - device_bytes)
            way, folder = self.request.way, self.staging.folder
            self.taking = held(stream.listening(folder, way, room, self._former(), services.reporter))
        if self.taking is None:
            self.options = choice.with_direct_io(self.options, self.criu)
        loading.join()

    def _former(self) -> Entry | None:
        """The snapshot with which this one may share what is the same."""
        target = self.request.target
        if not self.request.way.dedup or not isinstance(target, StoreTarget):
            return None
        return newest_with_container(target.store.run(self.run_name))

    def discard(self) -> None:
        """Remove what was built and close the journal, unless the job must be recovered: the images are needed then."""
        if self.gpu_failure or (self.record is not None and standing.is_standing_still(self.record.entry)):
            return
        if self.taking is not None:
            self.taking.capture.close()
        if self.staging is not None:
            staging.discard(self.staging.folder)
        if self.record is not None:
            self.record.close()

    def freeze(self) -> None:
        """Let criu write the images; it leaves the tree stopped, or running, and never kills it.

        A tree that shares files in memory is left stopped in any case, until those have been copied.
        """
        record, folder = self._opened()
        stop = not self.request.leave_running or self.bytes_to_keep is not None
        record.advance(Phase.FREEZING)
        pid = self.tree.root.pid
        request = criu_dump.DumpRequest(
            root_pid=namespaces.pid_inside(pid),
            images=folder.images,
            logs=folder.logs,
            options=tuple(self.options.dump_words()),
            leave=Leave.STOPPED if stop else Leave.RUNNING,
            prefix=namespaces.enter_namespaces_prefix(pid),
            outer_pid=pid,
            streamer=self.taking.capture if self.taking else None,
        )
        logs_kept = failures.keeping_logs(folder.logs, self.services.host_state.failures, self.id)
        with stream.explaining(self.taking, self.criu), logs_kept:
            self.reached.before_freeze()
            self.stats = criu_dump.dump(self.criu, request, interrupt=self.services.interrupt, on_progress=self._watch)
        if stop:
            self.reached.while_stopped()
        record.advance(Phase.FROZEN, tree=standing.tree_processes(standing.members(record.entry)))
        if self.gpu is not None:
            gpu.require_in_images(request.written_bytes(), self.gpu_host_bytes)
        if self.bytes_to_keep is not None:
            self.kept_files = kept.keep(self.images, folder.images)
        if stop and self.request.leave_running:
            standing.let_run(record.entry)

    @cached_property
    def images(self) -> Images:
        """What CRIU recorded: read when it is first needed, which is after the pause where that can be."""
        from ckptctl.criu.images import read_images

        return read_images(self._staged().folder.images)

    def let_run(self) -> None:
        """Let the tree run on, whatever criu did to it. Raises JobStopped."""
        if self.record is not None:
            standing.let_run(self.record.entry)

    def write_down(self) -> None:
        """Digest the images on their way to the disk, and write down what they are."""
        from ckptctl.criu import network
        from ckptctl.snapshot import describe
        from ckptctl.store import manifest_json, script

        _, folder = self._opened()
        digested = stream.bring_in(folder, self.taking, self.services.interrupt, partial(self._progress, "images"))
        for caution in network.unheld(self.images, self.options):
            self._warn(caution, "W_NOT_HELD")
        described = self.described = describe.manifest_of(self._subject(), self.images, digested)
        manifest_json.write(folder.manifest, described)
        script.write(folder.restore_script, described)

    def commit(self) -> None:
        """Make the snapshot durable and let it appear, by one rename."""
        record, _ = self._opened()
        record.advance(Phase.COMMITTING)
        staging.commit(self._staged(), self.services.interrupt)

    def ends_the_job(self) -> bool:
        """Whether the job is to end once it is saved."""
        return not self.request.leave_running

    def end(self) -> None:
        """End the tree that has been saved, and wait until its pids are free."""
        record, _ = self._opened()
        # A note that cannot be written must not leave a job standing still that has been saved.
        with suppress(FileTrouble, NoSpace):
            record.advance(Phase.ENDING)
        standing.end_saved(record.entry, self._warn)

    def link(self) -> None:
        """Let `latest` and `backup` of the run name the newest two; nothing is left to be repaired then."""
        record, _ = self._opened()
        if isinstance(self.request.target, StoreTarget):
            links.advance(self.request.target.store.run(self.run_name), self.id)
        record.close()

    # What the steps share.

    def _staged(self) -> staging.Staging:
        assert self.staging is not None
        return self.staging

    def _opened(self) -> tuple[journal.Record, SnapshotFolder]:
        assert self.record is not None
        return self.record, self._staged().folder

    def _entry(self, staged: staging.Staging) -> JournalEntry:
        return JournalEntry(
            id=self.id,
            action=Action.DUMP,
            phase=Phase.PREPARED,
            owner=self.services.owner,
            tree=standing.tree_processes(self.tree.ids),
            folder=staged.final.path,
            staging=staged.folder.path,
            to_end=not self.request.leave_running,
            gpu=self.gpu.pids if self.gpu else (),
            stopped_before=tuple(one.pid for one in self.tree.processes if one.state is State.STOPPED),
        )

    def _require_gpu_room(self) -> None:
        if self.gpu is not None:
            gpu.require_host_memory(self.gpu, self.tree, self.services.machine.memory_available_bytes)
            if self.gpu.unseen:
                self._warn(self.gpu.unseen, "W_GPU_MEMORY_UNSEEN")

    def _subject(self) -> describe.Subject:
        from ckptctl.snapshot import describe

        request = self.request
        environments = {pid: read_environment(pid) for pid in self.tree.pids} if request.keep_environment else {}
        return describe.Subject(
            id=self.id,
            run=self.run_name,
            created=self.created,
            ended=not request.leave_running,
            tree=self.tree,
            machine=self.services.machine,
            criu=self.criu,
            options=self.options,
            stats=self.stats,
            timings=tuple(self.timings),
            progress=self.reached.at_freeze,
            tags=request.tags,
            note=request.note,
            environments=environments,
            kept_files=self.kept_files,
            gpu=describe.gpu_of(self.gpu, self.tree),
            buffer_bytes=self.taking.capture.memory_bytes if self.taking else 0,
            peak_bytes=memory.peak_bytes(),
        )

    def _progress(self, what: str, done: int, total: int) -> None:
        self.services.reporter.report(Progress(what, done, total))

    def _watch(self, written_bytes: int) -> None:
        self._progress("memory", written_bytes, self.tree.estimated_bytes)
        self.reached.while_criu_works(self.tree.root.id, written_bytes)

    def _warn(self, text: str, code: str) -> None:
        self.warnings.append(text)
        self.services.reporter.report(Caution(text, code))

    def _outcome(self) -> Outcome:
        root = self.tree.root
        return standing.outcome_of(root.id, stopped_before=root.state is State.STOPPED)

    def _with_outcome(self, error: CkptctlError) -> CkptctlError:
        if not hasattr(self, "tree"):
            if isinstance(error, KernelThread):
                return error  # no job, of which there were something to say
            with suppress(NoSuchProcess):
                error.outcome = standing.outcome_of(identify(self.request.pid), stopped_before=True).sentence
            return error
        committed = self.staging is not None and staging.is_committed(self.staging)
        return after_failed_dump(
            error,
            self._outcome(),
            touched=self.record is not None,
            snapshot=self._staged().final.path if committed else None,
            gpu_failure=self.gpu_failure,
        )

    def _report(self) -> DumpReport:
        from ckptctl.snapshot import describe

        pid, final = self.tree.root.pid, self._staged().final.path
        if self.request.leave_running:
            outcome = self._outcome()
        else:
            outcome = Outcome(pid, JobState.ENDED, f"The job (pid {pid}) was saved and has ended.")
        return DumpReport(
            id=self.id,
            run=self.run_name,
            folder=final,
            outcome=outcome,
            progress=self.reached.at_freeze,
            processes=len(self.tree.processes),
            image_bytes=self.described.images.size_bytes,
            frozen_s=self.stats.frozen_us / 1e6,
            timings=tuple(self.timings),
            contents_bytes=self.described.images.contents_bytes,
            shared_bytes=self.described.images.shared_bytes,
            images=Layout.STREAM if self.described.images.container else Layout.DIRECTORY,
            buffer_bytes=self.described.memory.buffer_bytes,
            peak_bytes=memory.peak_bytes(),
            criu=f"{self.criu.version_text} ({self.criu.path}, {self.criu.source})",
            options=describe.options_of(self.options),
            gpu=describe.gpu_of(self.gpu, self.tree),
            warnings=tuple(self.warnings),
        )


_STEPS: Final[tuple[Step[Dump], ...]] = (
    Step("look", "Looking at the job", Dump.look),
    Step("prepare", "Preparing", Dump.prepare, undo=Dump.discard),
    Step("lock-gpu", "Waiting for the GPUs to come to rest", Dump.lock_gpu, undo=Dump.free_gpu, when=Dump.has_gpu),
    Step(
        "checkpoint-gpu",
        "Moving device memory to host memory",
        Dump.checkpoint_gpu,
        when=Dump.has_gpu,
    ),
    Step("freeze", "Saving the job's memory", Dump.freeze, undo=Dump.let_run),
    Step("resume-gpu", "Moving device memory back", Dump.resume_gpu, when=Dump.gpu_goes_on),
    Step("describe", "Writing the manifest", Dump.write_down),
    Step("commit", "Committing the snapshot", Dump.commit, final=True),
    Step("end", "Ending the job", Dump.end, when=Dump.ends_the_job),
    Step("link", "Naming the newest snapshot", Dump.link),
)
