"""Snapshots made smaller where they lie: written anew beside it, then put in place of the former by one rename.

The job is not touched. Until the rename the former is there, whole, and from then on the new one. Snapshots that share
memory are done together, from the oldest on, so that they share it afterwards too.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.events import Progress
from ckptctl.files import FileTrouble
from ckptctl.host.priority import raised
from ckptctl.images.container import ContainerDamaged
from ckptctl.images.levels import Compression
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.exchange import copy_beside, copy_images
from ckptctl.snapshot.former import known_by
from ckptctl.snapshot.remove import InUse, needed_folders
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.ways import Form, Layout
from ckptctl.store import catalog, locks, manifest_json, packs, script, staging
from ckptctl.store.catalog import Entry
from ckptctl.store.digests import Meter
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import Manifest
from ckptctl.store.staging import Staging

# A dump that is under way when a snapshot is to be replaced is waited for this long at the least: the work is done.
_PATIENCE_S: Final = 60.0
_RANKS: Final = tuple(Compression)


class Overtaken(CkptctlError):
    """A snapshot was removed or replaced by somebody else while it was written anew."""

    code = "E_OVERTAKEN"
    exit_status = ExitStatus.LOCKED


@dataclass(frozen=True, slots=True)
class Recompressed:
    """What became of one snapshot: its own size before and after, or why it was left as it is."""

    id: str
    run: str
    before_bytes: int
    after_bytes: int
    left_because: str | None = None


def recompress(
    store: Store, run: str, ids: frozenset[str] | None, compression: Compression, services: Services
) -> tuple[Recompressed, ...]:
    """Compress these snapshots of a run, or all of them, oldest first.

    Left as they are: those that are compressed so already, that are damaged, whose memory is in files of CRIU, that
    share memory with others that are not among them, and that somebody removes meanwhile.
    Raises InUse, Overtaken, Locked, SnapshotDamaged, ContainerDamaged, ZstdMissing, NoSpace, FileTrouble and what the
    interrupt raises: those that are done stay done, and the others are as they were.
    """
    work = _Work(store, run, compression, services)
    wait_s, interrupt = services.lock_wait_s, services.interrupt
    with locks.recompress_lock(store, run, services.owner, wait_s=wait_s, interrupt=interrupt):
        entries = catalog.list_snapshots(store, run)
        wanted = [entry for entry in entries if ids is None or entry.id in ids]
        outside = frozenset(inode for entry in entries if entry not in wanted for inode in packs.shares(entry))
        return tuple(work.on(entry, outside) for entry in wanted)


class _Work:
    """What was done so far; `replaced` are the files with memory of snapshots that were replaced.

    `former` is the last one that is as it should be: the next one shares what it has.
    """

    def __init__(self, store: Store, run: str, compression: Compression, services: Services) -> None:
        self.store = store
        self.run = run
        self.compression = compression
        self.services = services
        self.replaced: frozenset[packs.Inode] = frozenset()
        self.former: Entry | None = None

    def on(self, entry: Entry, outside: frozenset[packs.Inode]) -> Recompressed:
        manifest = entry.manifest
        before = manifest.images.size_bytes if manifest else 0
        shared = packs.shares(entry)
        reason = self._obstacle(entry, shared & outside)
        if reason is None and self._is_done(entry, shared):
            self.former = entry
            reason = "it is compressed already"
        if reason is not None or manifest is None:
            return Recompressed(entry.id, self.run, before, before, reason)
        try:
            changed = self._replace(entry, manifest)
        except (ContainerDamaged, SnapshotDamaged, FileTrouble, Overtaken):
            if entry.folder.path.exists():
                raise
            return Recompressed(entry.id, self.run, before, before, "it was removed meanwhile")
        self.replaced |= shared
        self.former = catalog.read_entry(self.store.run(self.run), entry.id)
        return Recompressed(entry.id, self.run, before, changed.images.size_bytes)

    def _obstacle(self, entry: Entry, outside: frozenset[packs.Inode]) -> str | None:
        """Why it cannot be compressed, in words; `outside`: what it shares with others that are not to be."""
        if entry.manifest is None or not entry.sound:
            return "it is damaged"
        if entry.manifest.images.container is None:
            return "its memory is in files of criu"
        if outside:
            return "it shares memory with snapshots that are not among these; --run takes all of a run"
        return None

    def _is_done(self, entry: Entry, shared: frozenset[packs.Inode]) -> bool:
        """Whether it is compressed so, and shares nothing that only it would keep now."""
        container = entry.manifest.images.container if entry.manifest else None
        if container is None or shared & self.replaced:
            return False
        return _RANKS.index(container.compression) >= _RANKS.index(self.compression)

    def _replace(self, entry: Entry, manifest: Manifest) -> Manifest:
        name = f"{entry.id}.{self.services.random_hex()}"
        staged = Staging(SnapshotFolder(self.store.staging / name), entry.folder)
        try:
            with self._in_store(), ExitStack() as made:
                made.callback(staging.discard, staged.folder)  # the former, or what has come of the new one
                staging.create(staged)
                changed = self._write(staged.folder, entry, manifest)
                staging.make_durable(staged)
                with raised(), self._alone():
                    self._require_unchanged(entry)
                    copy_beside(entry.folder, staged.folder)
                    staging.replace(staged, self.services.interrupt)
        except OSError as error:
            raise files.trouble(error, f"The snapshot {entry.id} cannot be compressed") from error
        return changed

    def _write(self, folder: SnapshotFolder, entry: Entry, manifest: Manifest) -> Manifest:
        form = Form(Layout.STREAM, self.compression)
        with ExitStack() as held:
            known = known_by(self.former, folder, self.services.reporter) if self.former else None
            if known is not None:
                held.callback(known.close)
            meter = Meter(manifest.images.contents_bytes, self.services.interrupt, self._progress)
            made = copy_images(entry.folder.images, folder.images, manifest.images, form, meter, known)
        memory = dataclasses.replace(manifest.memory, image_bytes=made.size_bytes)
        changed = dataclasses.replace(manifest, images=made, memory=memory)
        manifest_json.write(folder.manifest, changed)
        script.write(folder.restore_script, changed)
        return changed

    def _require_unchanged(self, entry: Entry) -> None:
        if entry.folder.path in needed_folders(self.services):
            raise InUse(f"{entry.id} is needed by an action that was cut off.", hint="Finish it first: ckptctl recover")
        if catalog.read_entry(self.store.run(self.run), entry.id).manifest != entry.manifest:
            raise Overtaken(
                f"The snapshot {entry.id} was changed or removed by another command.", hint="Look at `ckptctl list`."
            )

    def _in_store(self) -> AbstractContextManager[None]:
        """So that nobody takes the staging folder for a leftover; in the run others may remove what they like."""
        append, owner, interrupt = locks.Intent.APPEND, self.services.owner, self.services.interrupt
        return locks.store_lock(self.store, append, owner, wait_s=self.services.lock_wait_s, interrupt=interrupt)

    def _alone(self) -> AbstractContextManager[None]:
        exclusive, owner, interrupt = locks.Intent.EXCLUSIVE, self.services.owner, self.services.interrupt
        wait_s = max(self.services.lock_wait_s, _PATIENCE_S)
        return locks.run_lock(self.store, self.run, exclusive, owner, wait_s=wait_s, interrupt=interrupt)

    def _progress(self, done: int, total: int) -> None:
        self.services.reporter.report(Progress("images", done, total))
