"""Whether a snapshot is what it was when it was taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ckptctl.events import Progress
from ckptctl.snapshot.labels import note_verification
from ckptctl.snapshot.services import Services
from ckptctl.store import integrity, manifest_json
from ckptctl.store.integrity import Damage
from ckptctl.store.layout import SnapshotFolder
from ckptctl.store.manifest import Manifest
from ckptctl.store.manifest_json import ManifestDamaged, ManifestTooNew


@dataclass(frozen=True, slots=True)
class Verdict:
    """`damages` make a restore impossible; `warnings` do not, such as permissions that let others read."""

    folder: Path
    read_data: bool
    damages: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.damages

    @property
    def lines(self) -> list[str]:
        """The verdict for people."""
        how = "every byte" if self.read_data else "manifest, names and sizes"
        head = f"{self.folder.name}: {'sound' if self.sound else 'DAMAGED'} ({how} checked)"
        return [head, *(f"  {damage}" for damage in self.damages), *(f"  warning: {text}" for text in self.warnings)]


def verify_for_restore(folder: SnapshotFolder, manifest: Manifest, services: Services) -> Verdict:
    """Check the structure and every byte, but for memory that is checked as criu gets it. Raises as `verify`."""
    if manifest.images.container is None:
        return verify(folder, read_data=True, services=services)
    found = [
        *integrity.verify_structure(folder),
        *integrity.verify_small_files(folder, manifest, services.interrupt),
    ]
    return _verdict(folder, found, read_data=True)


def verify(folder: SnapshotFolder, *, read_data: bool, services: Services) -> Verdict:
    """Check the structure and, if asked, every byte, which is then written down. Raises what the interrupt raises."""
    found: list[Damage] = list(integrity.verify_structure(folder))
    if read_data:
        try:
            manifest = manifest_json.read(folder.manifest)
        except (ManifestDamaged, ManifestTooNew):
            pass  # named by the structure already
        else:
            found += integrity.verify_data(
                folder,
                manifest,
                services.interrupt,
                lambda done, total: services.reporter.report(Progress("images", done, total)),
            )
            note_verification(folder, sound=not any(damage.fatal for damage in found), services=services)
    return _verdict(folder, found, read_data=read_data)


def _verdict(folder: SnapshotFolder, found: list[Damage], *, read_data: bool) -> Verdict:
    return Verdict(
        folder=folder.path,
        read_data=read_data,
        damages=tuple(dict.fromkeys(str(damage) for damage in found if damage.fatal)),
        warnings=tuple(dict.fromkeys(str(damage) for damage in found if not damage.fatal)),
    )
