"""Let the disk begin while CRIU still writes.

CRIU leaves its images in the page cache, and the kernel waits seconds before it writes them out, so an fsync after
the dump begins with everything still to do. Measured on 1 GiB with CRIU 4.2 (ext4, two cores, medians of nine to ten):
after CRIU has ended, fsync takes 0.02 s instead of 0.45 s, digests and fsync together 0.37 s instead of 0.49 s.
CRIU itself, and so the pause of the job, takes up to a fifth longer on a quiet machine. Right for a job that is to be
ended, wrong for one that is to go on.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_STEP_BYTES: Final = 32 << 20
_POLL_S: Final = 0.01


class Writeback:
    """A context manager: while it is open, files that grow in `folder` are being written out behind their writer.

    It only hastens what the kernel would do later: nothing is durable by it, and no error is raised.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._descriptors: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        self._thread = threading.Thread(target=self._follow, name="writeback", daemon=True)

    def __enter__(self) -> Writeback:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._stop.set()
        self._thread.join()
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                for entry in os.scandir(self._folder):
                    if entry.is_file(follow_symlinks=False):
                        self._start(entry.name)
            except OSError:
                continue  # a file that has gone again; fsync finds whatever is wrong

    def _start(self, name: str) -> None:
        size = (self._folder / name).lstat().st_size
        begun = self._begun.get(name, 0)
        if size - begun < _STEP_BYTES:
            return
        if name not in self._descriptors:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptors[name] = os.open(self._folder / name, flags)
        # Not SYNC_FILE_RANGE_WAIT_*: those would collect a write error that must be left for fsync to report.
        _sync_file_range(self._descriptors[name], begun, size - begun, _SYNC_FILE_RANGE_WRITE)
        self._begun[name] = size


_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
