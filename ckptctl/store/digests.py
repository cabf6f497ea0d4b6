"""Digests of image files, made while the disk still writes them.

Hashing a file and bringing it to the disk use different parts of the machine. Measured on 1 GiB just written (ext4,
two cores): fsync alone 0.42 s, fsync and then hashing 0.76 s, both at once 0.45 s.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from blake3 import blake3

from ckptctl import files
from ckptctl.interrupt import Interrupt
from ckptctl.store.manifest import ImageRecord

OnProgress = Callable[[int, int], None]
"""Called from the caller's thread with the bytes that are done and the sum of all."""

# Read with plain read(2), not mapped: a mapped file that shrinks or cannot be read is SIGBUS, not an error.
_CHUNK_BYTES: Final = 4 << 20
_BUFFERS: Final = 3
# ext4 makes one commit of several fsyncs that wait at the same time; small images come by the hundred.
_FSYNC_THREADS: Final = 4


class Meter:
    """Adds up what is done over many files, and is where the work can be interrupted."""

    def __init__(self, total_bytes: int, interrupt: Interrupt, on_progress: OnProgress) -> None:
        self._done = 0
        self._total = total_bytes
        self.interrupt = interrupt
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        """`size` more bytes are done. Raises what the interrupt raises."""
        self.interrupt.check()
        self._done += size
        self._on_progress(self._done, self._total)


def digest_images(
    folder: Path, interrupt: Interrupt, on_progress: OnProgress, *, without: frozenset[str] = frozenset()
) -> tuple[ImageRecord, ...]:
    """Bring every file below `folder`, but those called `without`, to the disk; their records, sorted by name.

    Interrupted between pieces of a few MiB. Raises files.FileTrouble, files.NoSpace and what `interrupt` raises;
    in every case no thread is left behind.
    """
    try:
        # The largest first: its writing takes longest, and all the others are hashed meanwhile.
        found = (path for path in files.walk_regular_files(folder) if path.name not in without)
        paths = sorted(found, key=lambda path: path.lstat().st_size, reverse=True)
        total = sum(path.lstat().st_size for path in paths)
        meter = Meter(total, interrupt, on_progress)
        with _Fsyncs(paths) as fsyncs:
            records = [_record(folder, path, meter) for path in paths]
            fsyncs.wait()
    except OSError as error:
        raise files.trouble(error, f"The images in {folder} cannot be read or brought to the disk") from error
    return tuple(sorted(records, key=lambda record: record.name))


def digest_descriptor(descriptor: int, on_piece: Callable[[int], None]) -> tuple[int, str]:
    """Size and digest of what `descriptor` reads from its beginning; it stays open.

    `on_piece` is called with the bytes of each piece and may raise. Raises OSError.
    """
    with _Reader(descriptor) as reader:
        # Half of the processors hash, the reader has the others to copy out of the page cache.
        digest = blake3(max_threads=max(1, len(os.sched_getaffinity(0)) // 2))
        size = 0
        while piece := reader.take():
            digest.update(piece)
            size += len(piece)
            on_piece(len(piece))
            reader.give_back()
    return size, digest.hexdigest()


def fsync_all(paths: Sequence[Path]) -> None:
    """Bring files to the disk, several at a time. Raises OSError."""
    with _Fsyncs(paths) as fsyncs:
        fsyncs.wait()


def _record(folder: Path, path: Path, meter: Meter) -> ImageRecord:
    name = path.relative_to(folder).as_posix()
    descriptor = files.open_beneath(folder, name)
    try:
        size, digest = digest_descriptor(descriptor, meter.add)
    finally:
        os.close(descriptor)
    return ImageRecord(name, size, digest)


class _Reader:
    """Reads a file ahead of its user, in a thread, into a few buffers that are used again and again."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._free: SimpleQueue[bytearray | None] = SimpleQueue()
        self._full: SimpleQueue[tuple[bytearray, int] | OSError] = SimpleQueue()
        self._taken: bytearray | None = None
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)

    def __enter__(self) -> _Reader:
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for _ in range(_BUFFERS):
            self._free.put(bytearray(min(_CHUNK_BYTES, os.fstat(self._descriptor).st_size + 1)))
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._free.put(None)
        self._thread.join()

    def take(self) -> memoryview:
        """The next piece of the file, empty at its end; valid until it is given back."""
        found = self._full.get()
        if isinstance(found, OSError):
            raise found
        self._taken, size = found
        return memoryview(self._taken)[:size]

    def give_back(self) -> None:
        """Let the piece that was taken be overwritten."""
        self._free.put(self._taken)

    def _read(self) -> None:
        position = 0
        while (buffer := self._free.get()) is not None:
            try:
                size = os.preadv(self._descriptor, [buffer], position)
            except OSError as error:
                self._full.put(error)
                return
            self._full.put((buffer, size))
            position += size
            if not size:
                return


class _Fsyncs:
    """fsync of several files in threads of their own; leaving the block gives up those that have not begun."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._pool = ThreadPoolExecutor(_FSYNC_THREADS, thread_name_prefix="fsync")
        self._results = [self._pool.submit(files.fsync_file, path) for path in paths]

    def __enter__(self) -> _Fsyncs:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def wait(self) -> None:
        """Wait for every file. Raises the OSError of the first that failed."""
        for result in self._results:
            result.result()
