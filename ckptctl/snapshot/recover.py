"""After a ckptctl that was killed: the journal says where to look, and what is there decides what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ckptctl.criu import namespaces
from ckptctl.criu.running import find_running
from ckptctl.cuda.driver import GpuPair
from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Notice
from ckptctl.process import control
from ckptctl.process.identity import ProcessId, identify
from ckptctl.process.member import command_words, read_stat
from ckptctl.process.proc import Vanished
from ckptctl.snapshot import gpu, gpu_return, kept, returned, standing, tails
from ckptctl.snapshot.restore import OVERLAY
from ckptctl.snapshot.services import Services
from ckptctl.store import journal, links, locks, manifest_json, staging
from ckptctl.store.journal import Action, DamagedEntry, JournalEntry, OpenEntry, Phase
from ckptctl.store.layout import SnapshotFolder, store_of
from ckptctl.store.locks import Intent, Want
from ckptctl.store.manifest import Manifest

_WAIT_S: Final = 600.0
# A task is called so from its birth until criu has given it its own name again; behind a loader of its own, like that.
_CRIU_NAMES: Final = ("criu", "ld-linux-x86-64", "ld-linux-aarch6")


@dataclass(frozen=True, slots=True)
class Recovery:
    """One action that was cut off, and what became of it; `error` says why it could not be mended yet."""

    id: str
    action: Action
    sentence: str
    error: str | None = None


def recover(services: Services) -> tuple[Recovery, ...]:
    """Finish or undo every action whose ckptctl is dead, and those of our own that failed and were left open.

    Not to be called while one of our own is under way. What fails stays in the journal for the next time. Costs the
    listing of a folder where there is nothing to do. Raises FileTrouble, Locked, and the interrupt's errors.
    """
    folder = services.host_state.journal
    if not journal.open_entries(folder, services.owner):
        return ()
    alone = [Want("recovery", Intent.EXCLUSIVE)]
    with locks.hold(services.host_state.locks, alone, services.owner, wait_s=_WAIT_S, interrupt=services.interrupt):
        done = []
        for found in journal.open_entries(folder, services.owner):
            if isinstance(found, DamagedEntry):
                text = f"The journal {found.path} cannot be read: {found.problem}."
                services.reporter.report(Caution(text, "W_JOURNAL_DAMAGED"))
            elif found.abandoned or found.entry.owner == services.owner:
                done.append(_recover_one(found, services))
        return tuple(done)


def _recover_one(found: OpenEntry, services: Services) -> Recovery:
    entry = found.entry
    if entry.owner.boot_id != services.owner.boot_id:
        entry = _after_reboot(entry)
    try:
        with _run_locked(entry, services):
            record = journal.take_over(found, services.owner)
            sentence = (
                _recover_dump(entry, services) if entry.action is Action.DUMP else _recover_restore(entry, services)
            )
            record.close()
    except CkptctlError as error:
        text = f"The {entry.action} {entry.id} that was cut off cannot be mended: {error.message}"
        services.reporter.report(Caution(text, "W_NOT_RECOVERED"))
        return Recovery(entry.id, entry.action, text, error.message)
    services.reporter.report(Notice(sentence))
    return Recovery(entry.id, entry.action, sentence)


def _after_reboot(entry: JournalEntry) -> JournalEntry:
    """Nothing of the tree has survived, and its pids are by now those of strangers: none of them is acted on."""
    return dataclasses.replace(entry, tree=(), gpu=(), stopped_before=())


@contextmanager
def _run_locked(entry: JournalEntry, services: Services) -> Iterator[None]:
    """Hold the lock of the run that the snapshot belongs to, where it lies in a store."""
    store = store_of(entry.folder)
    if store is None:
        yield
        return
    intent = Intent.APPEND if entry.action is Action.DUMP else Intent.READ
    run = entry.folder.parent.name
    with locks.run_lock(store, run, intent, services.owner, wait_s=_WAIT_S, interrupt=services.interrupt):
        yield


def _recover_dump(entry: JournalEntry, services: Services) -> str:
    """Forward where the snapshot was committed, back to a running job where not."""
    assert entry.staging is not None
    built = staging.Staging(SnapshotFolder(entry.staging), SnapshotFolder(entry.folder))
    if not staging.is_committed(built):
        if entry.tree:
            standing.let_run(entry)
            living = {process.pid for process in standing.members(entry) if not control.standing(process).gone}
            gpu.bring_back([pid for pid in entry.gpu if pid in living], services.open_cuda)
        staging.discard(built.folder)
        return f"The dump {entry.id} was cut off and is taken back. {_taken_back(entry)}"
    if entry.to_end:
        standing.end_saved(entry, lambda text, code: services.reporter.report(Caution(text, code)))
    store = store_of(entry.folder)
    if store is not None:
        links.advance(store.run(entry.folder.parent.name), entry.id)
    return f"The dump {entry.id} is complete: {entry.folder}. {_left(entry)}"


def _taken_back(entry: JournalEntry) -> str:
    if not entry.tree:
        return "The job has not survived the restart of the machine."
    root = entry.tree[0].identity
    return standing.outcome_of(root, stopped_before=root.pid in entry.stopped_before).sentence


def _left(entry: JournalEntry) -> str:
    if not entry.tree:
        return "The job has not survived the restart of the machine; restore it from there."
    pid = entry.tree[0].pid
    return f"The job (pid {pid}) has ended." if entry.to_end else f"The job (pid {pid}) was left running."


def _recover_restore(entry: JournalEntry, services: Services) -> str:
    """Forward where the whole tree has come up, back to the files as they were where not."""
    if entry.phase in (Phase.RESTORING, Phase.RESTORED) and entry.owner.boot_id == services.owner.boot_id:
        _wait_for_criu(entry)
        root = _finish_or_end(entry, services)
        if root is not None:
            return f"The restore {entry.id} was cut off, but the job runs as pid {root.pid}."
    try:
        kept.take_back(entry.replaced)
    finally:
        left = tails.put_back(entry.moved).left
    aside = "".join(f" What was behind {item.path} is kept in {item.tail}." for item in left)
    return f"The restore {entry.id} was cut off and is taken back; the snapshot {entry.folder} is as it was.{aside}"


def _finish_or_end(entry: JournalEntry, services: Services) -> ProcessId | None:
    """Let the tree run if all of it came up, and return its root; else end what did."""
    manifest = manifest_json.read(SnapshotFolder(entry.folder).manifest)
    came_up = _came_up(entry, manifest)
    root = next((one for one in came_up if namespaces.pid_inside(one.pid) == manifest.tree.root_pid), None)
    if root is not None:
        try:
            returned.require_all(manifest, root)
            returned.let_go(manifest, root)
            _finish_gpu(entry, manifest, root, services)
        except (returned.NotReturned, gpu_return.GpuNotRestored):
            root = None
    if root is None:
        returned.end_all(came_up, None)
    return root


def _finish_gpu(entry: JournalEntry, manifest: Manifest, root: ProcessId, services: Services) -> None:
    if manifest.gpu is None:
        return
    pairs = tuple(GpuPair(old, new) for old, new in entry.gpu_map.items())
    driver = services.open_cuda().require()
    pids = returned.pids_here(manifest.gpu.pids, root)
    try:
        gpu_return.restore(driver, manifest.gpu, pids, pairs)
    except gpu_return.GpuNotRestored:
        gpu_return.put_away(driver, pids)
        raise
    finally:
        driver.close()


def _came_up(entry: JournalEntry, manifest: Manifest) -> tuple[ProcessId, ...]:
    """What is there of the restored tree: for a PID namespace of its own everything in that, else by the pids.

    Those were free when criu began, and the ckptctl that began it, on this very boot, is older than anything that it
    restored.
    """
    if entry.new_pid_namespace:
        inits = [identify(pid) for pid in _running(entry) if _is_init(pid)]
        return tuple(below for init in inits for below in control.walk(init))
    names = {process.pid: process.comm for process in manifest.tree.processes}
    found = []
    for pid, comm in names.items():
        with suppress(Vanished):
            stat = read_stat(f"/proc/{pid}/stat")
            if stat.start_ticks >= entry.owner.start_ticks and stat.name in (comm, *_CRIU_NAMES):
                found.append(stat.id)
    return tuple(found)


def _wait_for_criu(entry: JournalEntry) -> None:
    """A criu that still restores comes to its end, for good or ill; it takes as long as the memory is large."""
    while not control.wait_until(lambda: all(_is_init(pid) for pid in _running(entry)), timeout_s=_WAIT_S):
        pass


def _running(entry: JournalEntry) -> tuple[int, ...]:
    folder = SnapshotFolder(entry.folder)
    overlay = folder.beside("logs") / entry.id / OVERLAY
    return (*find_running(folder.images), *find_running(overlay))


def _is_init(pid: int) -> bool:
    """Whether this is the process 1 of a restored tree, or the unshare that waits for it: both outlive criu."""
    return str(namespaces.INIT_PROGRAM) in command_words(pid)
