"""What earlier snapshots of a run have stored, for the next one to share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptctl.events import Caution, Reporter
from ckptctl.files import FileTrouble
from ckptctl.store import catalog, packs
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import RunFolder, SnapshotFolder

if TYPE_CHECKING:
    from ckptctl.images.known import Known


def newest_with_container(run: RunFolder) -> Entry | None:
    """The newest sound snapshot of the run whose memory lies in a container. Raises FileTrouble.

    None that has a file in common with one whose bytes were found to be damaged: the damage may be there.
    """
    ids = catalog.list_ids(run)
    looked_at = [catalog.read_entry(run, name) for name in ids if run.snapshot(name).labels.exists()]
    suspect = frozenset(inode for entry in looked_at if not entry.sound for inode in packs.shares(entry))
    for snapshot_id in reversed(ids):
        entry = catalog.read_entry(run, snapshot_id)
        if entry.sound and (found := packs.shares(entry)) and not found & suspect:
            return entry
    return None


def known_by(former: Entry, folder: SnapshotFolder, reporter: Reporter) -> Known | None:
    """The blocks of `former`, with links to their packs in `folder`; None, and a caution, where that cannot be."""
    from ckptctl.images.container import ContainerDamaged
    from ckptctl.images.known import Known

    if former.manifest is None or former.manifest.images.container is None:
        return None
    try:
        return Known.of(former.folder.images, folder.images, former.manifest.images.container.digest)
    except (ContainerDamaged, FileTrouble) as error:
        reporter.report(Caution(f"Nothing is shared with the snapshot {former.id}. {error.message}", "W_NOT_SHARED"))
        return None
