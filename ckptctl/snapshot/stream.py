"""Which way the images go between criu and the snapshot: as a stream through ckptctl, or through criu's own files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptctl.criu.failures import CriuDumpFailed
from ckptctl.criu.program import Criu, knows
from ckptctl.events import Notice, Reporter
from ckptctl.files import trouble
from ckptctl.host import cgroup
from ckptctl.images.protocol import broken
from ckptctl.snapshot.damage import SnapshotDamaged
from ckptctl.snapshot.former import known_by
from ckptctl.snapshot.ways import Aim, Way

if TYPE_CHECKING:
    from ckptctl.images.capture import Buffers, Capture
    from ckptctl.images.known import Known
    from ckptctl.images.levels import Compression
    from ckptctl.images.serve import Serving
    from ckptctl.images.writer import Sealed
    from ckptctl.interrupt import Interrupt
    from ckptctl.store import manifest
    from ckptctl.store.catalog import Entry
    from ckptctl.store.layout import SnapshotFolder

# Enough to keep a disk busy.
_LEAST_BYTES: Final = 64 << 20
# What of the free memory a job that waits for nothing but its pages may borrow.
_SHARES: Final = {Aim.AUTO: 0.25, Aim.PAUSE: 0.5}
_MARGIN: Final = 1.05
# With aim AUTO. A kernel that has memory at hand gives 5 GiB and more in a second; one that has to get it from a host
# first may take longer than the disk, and a snapshot that much later is worth more than a shorter pause.
_LIMIT_S_PER_BYTE: Final = 0.25 / (1 << 30)


def obstacle(folder: Path) -> str | None:
    """Why criu cannot hand its images over for a snapshot in `folder`, in a sentence; None where it can.

    It must be held until they have been read (see ckptctl.images.gate): by a script that looks into its descriptors.
    Raises OSError.
    """
    if os.geteuid() != 0:
        return "Memory is written by criu itself, since only root can hold criu until its pipes are empty."
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return f"Memory is written by criu itself, since nothing can be run from the file system of {folder} (noexec)."
    return None


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that is there for what criu gives faster than the disk takes it.

    `wanted_bytes` is what the job holds, for one that runs on as soon as its memory has been taken; 0 for one that
    waits for the disk anyway. `free_bytes` is what this machine, and a limit of our own, leave.
    """

    wanted_bytes: int
    free_bytes: int

    def buffers(self, aim: Aim) -> Buffers:
        """What to take of it."""
        from ckptctl.images.capture import Buffers

        allowed = round(self.free_bytes * _SHARES.get(aim, 0))
        return Buffers(
            memory_bytes=max(_LEAST_BYTES, min(round(self.wanted_bytes * _MARGIN), allowed)),
            # What is waited for here comes before the pause, and is no part of it.
            limit_s=self.wanted_bytes * _LIMIT_S_PER_BYTE if aim is Aim.AUTO and self.wanted_bytes else math.inf,
            whole_bytes=self.wanted_bytes if aim is Aim.PAUSE and self.wanted_bytes else None,
        )


@dataclass(frozen=True, slots=True)
class Taking:
    """Who takes the images of a dump, how memory is compressed, and what of it is stored already."""

    capture: Capture
    compression: Compression
    known: Known | None

    def bring_in(
        self, folder: SnapshotFolder, interrupt: Interrupt, on_progress: Callable[[int, int], None]
    ) -> manifest.Images:
        """As the function of this name."""
        from ckptctl.store import digests, manifest

        # The small files while the memory is still on its way.
        records = digests.digest_images(folder.images, interrupt, lambda *_: None, without=packs_in(folder.images))
        sealed = self.capture.finish(interrupt, on_progress)
        self.capture.close()
        if self.known is not None:
            self.known.close()
        return manifest.Images(manifest.DIGEST_ALGORITHM, records, record_of(folder.images, sealed, self.compression))


@contextmanager
def listening(
    folder: SnapshotFolder, way: Way, room: Room, former: Entry | None, reporter: Reporter
) -> Iterator[Taking | None]:
    """Be ready to take the images of a dump; `room` is what the machine has, a limit of our own comes on top.

    What the snapshot `former` has stored is shared with it.
    None, and a word to the reporter, where criu must write them itself. Raises FileTrouble, NoSpace and ZstdMissing.
    """
    from ckptctl.images.capture import Capture

    reason = obstacle(folder.logs)
    if reason is not None:
        reporter.report(Notice(reason))
        yield None
        return

    left = cgroup.memory_left_bytes(Path("/proc/self/cgroup").read_text().splitlines())
    room = room if left is None else replace(room, free_bytes=min(room.free_bytes, left))
    with ExitStack() as held:
        known = known_by(former, folder, reporter) if former is not None else None
        if known is not None:
            held.callback(known.close)
        capture = Capture(
            folder.images,
            folder.logs,
            room.buffers(way.aim),
            compression=way.compression,
            known=known,
        )
        with capture:
            yield Taking(capture, way.compression, known)


@contextmanager
def explaining(taking: Taking | None, criu: Criu) -> Iterator[None]:
    """Where `criu` fails in this block since its images could not be taken, raise why; so too where they did not come.

    Raises NoSpace, FileTrouble and StreamBroken.
    """
    capture = taking.capture if taking else None
    try:
        yield
    except CriuDumpFailed as error:
        failure = capture.failure if capture else None
        # Asked only now: nearly every criu does.
        if capture is not None and failure is None and not knows(criu, "--stream"):
            failure = broken(f"{criu.path} knows nothing of --stream")
        if failure is None:
            raise
        failure.details.setdefault("criu_log", error.details.get("criu_log"))
        raise failure from error
    if capture is not None:
        capture.require_complete()


def bring_in(
    folder: SnapshotFolder, taking: Taking | None, interrupt: Interrupt, on_progress: Callable[[int, int], None]
) -> manifest.Images:
    """Bring every image to the disk, and say what they are. Raises FileTrouble, NoSpace and what `interrupt` raises."""
    from ckptctl.store import digests, manifest

    if taking is not None:
        return taking.bring_in(folder, interrupt, on_progress)
    records = digests.digest_images(folder.images, interrupt, on_progress)
    return manifest.Images(manifest.DIGEST_ALGORITHM, records)


def packs_in(images: Path) -> frozenset[str]:
    """The names of the files in a folder of images that hold memory. Raises FileTrouble."""
    from ckptctl.images.container import is_pack

    try:
        return frozenset(path.name for path in images.iterdir() if is_pack(path.name))
    except OSError as error:
        raise trouble(error, f"The images in {images} cannot be listed") from error


def record_of(images: Path, sealed: Sealed, compression: Compression) -> manifest.ContainerRecord:
    """What the manifest says of the container in a folder of images. Raises FileTrouble."""
    from ckptctl.images.container import FILE_NAME
    from ckptctl.store import manifest

    try:
        packs = tuple(manifest.PackRecord(name, (images / name).stat().st_size) for name in sealed.packs)
    except OSError as error:
        raise trouble(error, f"The images in {images} cannot be looked at") from error
    return manifest.ContainerRecord(
        FILE_NAME,
        sealed.size_bytes,
        sealed.contents_bytes,
        sealed.zero_bytes,
        sealed.digest,
        sealed.shared_bytes,
        compression,
        packs,
    )


@contextmanager
def serving(folder: SnapshotFolder, images: manifest.Images, small: Path, logs: Path) -> Iterator[Serving | None]:
    """Who gives criu the images, small files from the folder `small`; nobody where it reads its own.

    Raises SnapshotDamaged, also in the block where criu was given only part of the images for that, and FileTrouble.
    """
    if images.container is None:
        yield None
        return
    from ckptctl.images.container import ContainerDamaged
    from ckptctl.images.serve import Serving

    container = folder.images / images.container.name
    try:
        with Serving(small, container, images.container.digest, socket_folder=logs) as server:
            yield server
    except ContainerDamaged as error:
        raise SnapshotDamaged(f"The snapshot {folder.name} is damaged. {error.message}", hint=error.hint) from error
