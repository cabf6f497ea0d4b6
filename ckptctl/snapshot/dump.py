"""A dump: from a running job to a committed snapshot, with the job running or restorable at every instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.criu import choice, namespaces
from ckptctl.criu import dump as criu_dump
from ckptctl.criu.dump import Leave
from ckptctl.criu.options import Options
from ckptctl.criu.program import Criu
from ckptctl.criu.records import DumpStats
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Caution, Progress
from ckptctl.files import NoSpace
from ckptctl.preflight import tree as tree_checks
from ckptctl.preflight.finding import Finding, Level, refuse
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.process.tree import Tree, read_tree
from ckptctl.snapshot import describe, standing
from ckptctl.snapshot.outcome import JobLost, JobState, Outcome
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.steps import Step, Timing, run_steps
from ckptctl.store import commit, digests, journal, links, locks, manifest, manifest_json, names, restore_script
from ckptctl.store.journal import Action, JournalEntry, Phase, TreeProcess
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.units import format_size

# Room for page tables, the images that are not memory, and what the job allocates until it stands still.
_SPACE_MARGIN: Final = 1.05
_SPACE_EXTRA_BYTES: Final = 64 << 20
_REAP_TIMEOUT_S: Final = 10.0


class OwnTree(CkptctlError):
    """ckptctl was asked to dump a tree that it is part of."""

    code = "E_OWN_TREE"
    exit_status = ExitStatus.USAGE


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """The snapshot goes to a store; the run's name is made from the job's command line where it is None."""

    store: Store
    run: str | None


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """The snapshot becomes this folder, which must be empty or missing."""

    folder: Path


@dataclass(frozen=True, slots=True)
class DumpRequest:
    """What is asked for. `criu_options` are further words for criu, for the day our choice is wrong."""

    pid: int
    target: StoreTarget | FolderTarget
    leave_running: bool = False
    progress: manifest.Progress = field(default_factory=manifest.Progress)
    tags: tuple[str, ...] = ()
    note: str | None = None
    keep_environment: bool = False
    criu_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DumpReport:
    """A dump that succeeded. Times are in seconds; `frozen_s` is CRIU's own figure for the job's pause."""

    id: str
    run: str
    folder: Path
    outcome: Outcome
    processes: int
    image_bytes: int
    frozen_s: float
    timings: tuple[Timing, ...]
    criu: str
    options: tuple[manifest.CriuOption, ...]
    warnings: tuple[str, ...]


def dump(request: DumpRequest, services: Services) -> DumpReport:
    """Save the job and, unless it is to go on, end it.

    Raises NoSuchProcess, Refused (blockers), Locked, NoSpace, TargetNotEmpty, CriuDumpFailed and the interrupt's
    exceptions: the job then runs on as before and nothing is listed. Raises JobLost where it does not.
    """
    with ExitStack() as held:
        return _Dump(request, services, held).run()


class _Dump:
    """The state of one dump; each step fills in what the later ones need."""

    tree: Tree
    criu: Criu
    options: Options
    id: str
    run_name: str
    staging: SnapshotFolder
    final: SnapshotFolder
    record: journal.Record
    stats: DumpStats
    frozen_tree: tuple[ProcessId, ...]
    image_bytes: int

    def __init__(self, request: DumpRequest, services: Services, held: ExitStack) -> None:
        self.request = request
        self.services = services
        self.created = services.now()
        self.timings: list[Timing] = []
        self.warnings: list[str] = []
        self._held = held

    def run(self) -> DumpReport:
        try:
            run_steps(
                _STEPS,
                self,
                reporter=self.services.reporter,
                clock=self.services.clock,
                on_timing=self.timings.append,
            )
        except CkptctlError as error:
            raise self._with_outcome(error) from error.__cause__
        self.record.close()
        return self._report()

    # -- the steps --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Identify the tree, gather its facts, refuse what cannot be dumped. Nothing is touched."""
        self.tree = read_tree(self.request.pid)
        if any(process.id.pid == self.services.owner.pid for process in self.tree.processes):
            raise OwnTree(
                f"Process {self.request.pid} is a parent of this ckptctl, which would freeze itself.",
                hint="Run ckptctl outside the job: from another shell, cron, or with setsid.",
            )
        findings = tree_checks.findings(self.tree, self.services.machine)
        refuse(findings, f"The job {self.request.pid} cannot be dumped")
        for finding in findings:
            if finding.level is Level.WARNING:
                self._warn(finding)
        self.criu = self.services.find_criu()
        self.options = choice.choose_options(self.tree, self.services.machine, self.request.criu_options)

    def prepare(self) -> None:
        """Take the locks, open the journal and a staging folder, and see that there is room."""
        self.id = names.new_id(self.created, self.request.progress.step, self.services.random_hex())
        self._held.enter_context(self._tree_lock())
        self.final, self.staging = self._folders()
        self.record = journal.begin(self.services.host_state.journal, self._entry())
        commit.open_staging(self.staging)
        self._check_space()

    def discard(self) -> None:
        """Remove the staging folder; close the journal once the job is known to run."""
        if hasattr(self, "staging"):
            commit.discard(self.staging)
        if hasattr(self, "record") and not self._standing().stopped:
            self.record.close()

    def freeze(self) -> None:
        """Let criu write the images; it leaves the tree stopped, or running, and never kills it."""
        self.record.advance(Phase.FREEZING)
        leave = Leave.RUNNING if self.request.leave_running else Leave.STOPPED
        request = criu_dump.DumpRequest(
            root_pid=self.tree.root.namespace_pid,
            images=self.staging.images,
            logs=self.staging.logs,
            options=tuple(self.options.dump_words()),
            leave=leave,
            prefix=namespaces.enter_prefix(self.tree.root.id.pid),
        )
        self.stats = criu_dump.dump(
            self.criu, request, interrupt=self.services.interrupt, on_progress=self._progress("memory")
        )
        self.frozen_tree = control.walk(self.tree.root.id)
        self.record.advance(Phase.FROZEN, tree=_tree_processes(self.frozen_tree))

    def let_run(self) -> None:
        """Bring the tree back to running, whatever criu did to it. Raises JobStopped where it does not."""
        standing.bring_back(self.record.entry, self.criu, self.staging)

    def describe(self) -> None:
        """Read what CRIU recorded, digest the images, write the manifest and bring everything to the disk."""
        facts = describe.gather(self.staging.images, self.tree)
        images = digests.digest_images(
            self.staging.images, interrupt=self.services.interrupt, on_progress=self._progress("digests")
        )
        self.image_bytes = images.size_bytes
        record = describe.manifest_of(self._subject(), facts, images)
        manifest_json.write(self.staging.manifest, record)
        restore_script.write(self.staging.restore_script, record)

    def commit(self) -> None:
        """Make the snapshot durable and let it appear, by one rename."""
        self.services.interrupt.check()
        commit.fsync_metadata(self.staging)
        self.record.advance(Phase.COMMITTING)
        commit.commit(self.staging, self.final)

    def end(self) -> None:
        """End the tree that has been saved, and wait until its pids are free."""
        if self.request.leave_running:
            return
        self.record.advance(Phase.ENDING)
        standing.end_saved_tree(self.record.entry, self.criu, self.final, self._caution)

    def link(self) -> None:
        """Let `latest` and `backup` of the run point to the newest two."""
        if isinstance(self.request.target, StoreTarget):
            links.advance(self.request.target.store.run(self.run_name), self.id)

    # -- what the steps share ---------------------------------------------------------------------------------

    def _entry(self) -> JournalEntry:
        return JournalEntry(
            id=self.id,
            action=Action.DUMP,
            phase=Phase.PREPARED,
            owner=self.services.owner,
            tree=_tree_processes(process.id for process in self.tree.processes),
            folder=self.final.path,
            staging=self.staging.path,
            to_end=not self.request.leave_running,
            stopped_before=tuple(process.id.pid for process in self.tree.processes if process.is_stopped),
        )
