"""Copies of snapshots between the store and folders of their own, with the memory in a container or in CRIU's files.

Every byte is compared with its digest on its way: a copy is as sound as what it was made from, or there is none.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from ckptctl import files
from ckptctl.events import Progress
from ckptctl.images import blockfile, container
from ckptctl.images.container import StoredImage
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.reader import Reader, is_hole, require_digest
from ckptctl.images.writer import Sealed, Writer
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.stream import packs_in, record_of
from ckptctl.snapshot.ways import Form, Layout
from ckptctl.store import catalog, digests, links, locks, manifest_json, script, staging
from ckptctl.store.digests import Meter
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import DIGEST_ALGORITHM, ContainerRecord, ImageRecord, Images, Manifest
from ckptctl.store.staging import Staging


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of a snapshot that is complete."""

    id: str
    run: str
    folder: Path
    images: Layout
    image_bytes: int


def export(source: SnapshotFolder, target: Path, form: Form, services: Services) -> Copied:
    """Copy a snapshot to the folder `target`, which must be empty or missing.

    Raises TargetNotEmpty, SnapshotDamaged, ContainerDamaged, ManifestDamaged, NoSpace, FileTrouble and the interrupt's
    exceptions: then there is nothing at `target`.
    """
    found = manifest_json.read(source.manifest)
    return _copy(source, found, staging.place_beside(target, f"{found.id}-{services.random_hex()}"), form, services)


def bring_in(source: SnapshotFolder, store: Store, run: str | None, form: Form, services: Services) -> Copied:
    """Copy a snapshot in a folder of its own into the store, into its run or into `run`. Raises as `export`."""
    found = manifest_json.read(source.manifest)
    found = found if run is None else dataclasses.replace(found, run=run)
    append, owner, interrupt = locks.Intent.APPEND, services.owner, services.interrupt
    with locks.run_lock(store, found.run, append, owner, wait_s=services.lock_wait_s, interrupt=interrupt):
        copied = _copy(source, found, staging.place_in_store(store, found.run, found.id), form, services)
        folder = store.run(found.run)
        ids = catalog.list_ids(folder)
        if ids[-1] == found.id:
            links.advance(folder, found.id)
        else:
            links.repair(folder, ids)
    return copied


def _copy(source: SnapshotFolder, found: Manifest, staged: Staging, form: Form, services: Services) -> Copied:
    def progress(done: int, total: int) -> None:
        services.reporter.report(Progress("images", done, total))

    staging.create(staged)
    try:
        meter = Meter(found.images.contents_bytes, services.interrupt, progress)
        made = copy_images(source.images, staged.folder.images, found.images, form, meter)
        memory = dataclasses.replace(found.memory, image_bytes=made.size_bytes)
        changed = dataclasses.replace(found, images=made, memory=memory)
        copy_beside(source, staged.folder)
        manifest_json.write(staged.folder.manifest, changed)
        script.write(staged.folder.restore_script, changed)
        staging.commit(staged, services.interrupt)
    except OSError as error:
        raise files.trouble(error, f"The snapshot {source.path} cannot be copied") from error
    finally:
        if not staging.is_committed(staged):
            staging.discard(staged.folder)
    return Copied(found.id, found.run, staged.final.path, form.layout, made.size_bytes)


def copy_beside(source: SnapshotFolder, target: SnapshotFolder) -> None:
    """CRIU's logs and the labels."""
    for path in files.walk_regular_files(source.logs) if source.logs.is_dir() else ():
        copy = target.logs / path.relative_to(source.logs)
        files.make_private_folder(copy.parent)
        shutil.copyfile(path, copy)
    if source.labels.is_file():
        shutil.copyfile(source.labels, target.labels)


def copy_images(
    source: Path, target: Path, found: Images, form: Form, meter: Meter, known: Known | None = None
) -> Images:
    """Copy all images into the form that is wanted; blocks that are `known`, with links in `target`, are shared.

    Raises OSError, SnapshotDamaged, ContainerDamaged and ZstdMissing.
    """
    into_container = form.layout is Layout.STREAM
    for record in found.files:
        if not into_container or not _is_memory(record):
            _copy_file(source, target, record, meter)
    made = None
    if into_container:
        compression = form.compression or (found.container.compression if found.container else Compression.OFF)
        writer = Writer(target / container.FILE_NAME, compression, known)
        made = record_of(target, _fill_container(source, writer, found, meter), compression)
    elif found.container is not None:
        _empty_container(source, target, found.container, meter)
    records = digests.digest_images(target, meter.interrupt, lambda *_: None, without=packs_in(target))
    return Images(DIGEST_ALGORITHM, records, made)


def _copy_file(source: Path, target: Path, record: ImageRecord, meter: Meter) -> None:
    path = target / record.name
    files.make_private_folder(path.parent)
    with path.open("xb") as copy:
        for piece in _pieces_of(source, record, meter):
            copy.write(piece)


def _pieces_of(source: Path, record: ImageRecord, meter: Meter) -> Iterator[bytes]:
    """A file in pieces of one block. Raises SnapshotDamaged once it is known to be another one."""
    digest = blake3()
    with open(files.open_beneath(source, record.name), "rb") as file:
        while piece := file.read(container.GROUP_BYTES):
            digest.update(piece)
            meter.add(len(piece))
            yield piece
    if digest.hexdigest() != record.digest:
        raise SnapshotDamaged(
            f"The snapshot in {source.parent} is damaged: images/{record.name} is altered.",
            hint="Copy another one; `ckptctl verify --read-data` tells which are sound.",
        )


def _empty_container(source: Path, target: Path, record: ContainerRecord, meter: Meter) -> None:
    with Reader(source / record.name) as reader:
        require_digest(reader.index, record.digest)
        for image in reader.index.images:
            with (target / image.name).open("xb") as file:
                for piece in _stored_pieces(reader, image, meter):
                    # Zeros take no room here either.
                    file.seek(len(piece), os.SEEK_CUR) if is_hole(piece) else file.write(piece)
                file.truncate(image.size_bytes)


def _stored_pieces(reader: Reader, image: StoredImage, meter: Meter) -> Iterator[memoryview]:
    for piece in reader.pieces(image):
        yield piece
        meter.add(0 if is_hole(piece) else len(piece))


def _fill_container(source: Path, writer: Writer, found: Images, meter: Meter) -> Sealed:
    buffer = blockfile.allocate(container.GROUP_BYTES)
    try:
        if found.container is not None:
            with Reader(source / found.container.name) as reader:
                require_digest(reader.index, found.container.digest)
                for image in reader.index.images:
                    writer.add_image(image.name, _stored_pieces(reader, image, meter), buffer)
        for record in filter(_is_memory, found.files):
            writer.add_image(record.name, _pieces_of(source, record, meter), buffer)
        return writer.seal()
    finally:
        writer.close()


def _is_memory(record: ImageRecord) -> bool:
    return container.is_page_image(record.name)
