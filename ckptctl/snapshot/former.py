"""What earlier snapshots of a run have stored, for the next one to share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Reporter
from ckptctl.files import FileTrouble
from ckptctl.store import catalog, manifest_json, packs
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import RunFolder, SnapshotFolder
from ckptctl.store.manifest import Manifest

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
    """The blocks of `former`, with links to their packs in `folder`; None, and a caution, where that cannot be.

    Where it was put in place of another meanwhile (`recompress`), those of the one that is there now.
    """
    from ckptctl.images.container import ContainerDamaged
    from ckptctl.images.known import Known

    digest = _digest(former.manifest)
    while digest is not None:
        try:
            return Known.of(former.folder.images, folder.images, digest)
        except (ContainerDamaged, FileTrouble) as error:
            tried, digest = digest, _digest(_manifest_now(former))
            if digest in (tried, None):
                text = f"Nothing is shared with the snapshot {former.id}. {error.message}"
                reporter.report(Caution(text, "W_NOT_SHARED"))
                return None
    return None


def _digest(manifest: Manifest | None) -> str | None:
    container = manifest.images.container if manifest else None
    return container.digest if container else None


def _manifest_now(entry: Entry) -> Manifest | None:
    """What its folder says now; None where that cannot be read, being removed perhaps."""
    try:
        return manifest_json.read(entry.folder.manifest)
    except CkptctlError:
        return None
