"""Is a snapshot what its manifest says it is? Every damaged file is named, and what is wrong with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.interrupt import Interrupt
from ckptctl.store import manifest_json
from ckptctl.store.digests import Meter, OnProgress, digest_descriptor
from ckptctl.store.layout import SnapshotFolder
from ckptctl.store.manifest import ContainerRecord, ImageRecord, Manifest, PackRecord
from ckptctl.store.manifest_json import ManifestDamaged, ManifestTooNew

_Record = ImageRecord | ContainerRecord | PackRecord


class Problem(StrEnum):
    """What can be wrong with a file of a snapshot."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    GROWN = "grown"
    ALTERED = "altered"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    LINK = "a link"
    EXTRA = "not in the manifest"
    EXPOSED = "open to other users"


@dataclass(frozen=True, slots=True)
class Damage:
    """One file (its name below the snapshot's folder) and what is wrong with it."""

    name: str
    problem: Problem
    detail: str = ""

    @property
    def fatal(self) -> bool:
        """Whether a restore must not go on. What others could read is bad, but still what it was."""
        return self.problem is not Problem.EXPOSED

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}" + (f" ({self.detail})" if self.detail else "")


def verify_structure(folder: SnapshotFolder) -> tuple[Damage, ...]:
    """All that can be found without reading the images: manifest, names, sizes, links, permissions.

    A file in `images` that the manifest does not name is damage: CRIU would read it.
    """
    try:
        manifest = manifest_json.read(folder.manifest)
    except (ManifestDamaged, ManifestTooNew) as error:
        return (Damage(folder.manifest.name, Problem.UNREADABLE, _what(error)), *_exposed(folder))
    records = _records(manifest)
    expected = {record.name for record in records}
    sizes = (_size_damage(folder, record) for record in records)
    return (*(damage for damage in sizes if damage), *_extra(folder, expected), *_exposed(folder))


def verify_data(
    folder: SnapshotFolder, manifest: Manifest, interrupt: Interrupt, on_progress: OnProgress
) -> tuple[Damage, ...]:
    """Read every byte of every image and compare it with its digest; every damaged file is returned.

    Raises what `interrupt` raises.
    """
    meter = Meter(manifest.images.contents_bytes, interrupt, on_progress)
    found = [_data_damage(folder, record, meter) for record in manifest.images.files]
    if manifest.images.container is not None:
        found.append(_container_damage(folder, manifest.images.container, meter))
    return tuple(damage for damage in found if damage)


def verify_small_files(folder: SnapshotFolder, manifest: Manifest, interrupt: Interrupt) -> tuple[Damage, ...]:
    """The same without the container, whose blocks are checked as they are read; see `verify_data`."""
    meter = Meter(manifest.images.size_bytes, interrupt, lambda _done, _total: None)
    found = (_data_damage(folder, record, meter) for record in manifest.images.files)
    return tuple(damage for damage in found if damage)


def _data_damage(folder: SnapshotFolder, record: ImageRecord, meter: Meter) -> Damage | None:
    damage = _size_damage(folder, record)
    if damage:
        return damage
    name = _below(folder, record)
    try:
        descriptor = files.open_beneath(folder.images, record.name)
        try:
            size, digest = digest_descriptor(descriptor, meter.add)
        finally:
            os.close(descriptor)
    except (OSError, files.FileTrouble) as error:
        return Damage(name, Problem.UNREADABLE, str(error))
    if size != record.size_bytes:
        return _wrong_size(name, size, record.size_bytes)
    if digest != record.digest:
        return Damage(name, Problem.ALTERED, f"digest {digest[:12]}… instead of {record.digest[:12]}…")
    return None


def _container_damage(folder: SnapshotFolder, record: ContainerRecord, meter: Meter) -> Damage | None:
    from ckptctl.images import reader
    from ckptctl.images.container import ContainerDamaged

    pieces: tuple[_Record, ...] = (record, *record.packs)
    damage = next((found for one in pieces if (found := _size_damage(folder, one))), None)
    if damage:
        return damage
    try:
        reader.verify(folder.images / record.name, record.digest, meter.add)
    except ContainerDamaged as error:
        return Damage(_below(folder, record), Problem.DAMAGED, _what(error))
    except files.FileTrouble as error:
        return Damage(_below(folder, record), Problem.UNREADABLE, error.message)
    return None


def _what(error: CkptctlError) -> str:
    """What is wrong, without the name of the file where the error tells the two apart."""
    return str(error.details.get("what", error.message))


def _records(manifest: Manifest) -> tuple[_Record, ...]:
    container = manifest.images.container
    pieces: tuple[_Record, ...] = (container, *container.packs) if container else ()
    return (*manifest.images.files, *pieces)


def _size_damage(folder: SnapshotFolder, record: _Record) -> Damage | None:
    name = _below(folder, record)
    try:
        status = _status_beneath(folder.images, record.name)
    except (FileNotFoundError, NotADirectoryError):
        return Damage(name, Problem.MISSING)
    except OSError as error:
        return Damage(name, Problem.UNREADABLE, str(error))
    if stat.S_ISLNK(status.st_mode):
        return Damage(name, Problem.LINK)
    if not stat.S_ISREG(status.st_mode):
        return Damage(name, Problem.UNREADABLE, "no regular file")
    if status.st_size != record.size_bytes:
        return _wrong_size(name, status.st_size, record.size_bytes)
    return None


def _status_beneath(folder: Path, name: str) -> os.stat_result:
    """lstat of a file below `folder`, or of the first link on the way to it. Raises OSError."""
    path = folder
    status = path.lstat()
    for part in Path(name).parts:
        path /= part
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            break
    return status


def _wrong_size(name: str, found: int, expected: int) -> Damage:
    problem = Problem.TRUNCATED if found < expected else Problem.GROWN
    return Damage(name, problem, f"{found} bytes instead of {expected}")


def _extra(folder: SnapshotFolder, expected: set[str]) -> Iterator[Damage]:
    for path in _walk(folder.images):
        name = path.relative_to(folder.images).as_posix()
        if name not in expected and not stat.S_ISDIR(path.lstat().st_mode):
            yield Damage(f"{folder.images.name}/{name}", Problem.EXTRA)


def _exposed(folder: SnapshotFolder) -> Iterator[Damage]:
    for path in (folder.path, *_walk(folder.path)):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue  # gone: whatever misses it says so
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and not stat.S_ISLNK(mode):
            detail = f"mode {stat.S_IMODE(mode):04o}"
            yield Damage(path.relative_to(folder.path).as_posix(), Problem.EXPOSED, detail)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder`, sorted, links not followed; nothing where it cannot be listed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _below(folder: SnapshotFolder, record: _Record) -> str:
    return f"{folder.images.name}/{record.name}"
