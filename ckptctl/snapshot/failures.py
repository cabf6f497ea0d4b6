"""What criu said of a dump that failed: kept, since nothing else of that dump is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.criu.failures import CriuDumpFailed
from ckptctl.errors import CkptctlError
from ckptctl.store.names import is_snapshot_id

_KEPT_MOST: Final = 10


@contextmanager
def keeping_logs(logs: Path, failures: Path, snapshot_id: str) -> Iterator[None]:
    """Where criu fails in this block, copy its logs to the folder `failures` and let the error name that place.

    Where they cannot be written (a full disk) the error names no log: its cause must not be hidden by another one.
    """
    try:
        yield
    except CriuDumpFailed as error:
        log = Path(str(error.details.pop("criu_log")))
        with suppress(OSError, CkptctlError):
            kept = failures / snapshot_id
            _copy(logs, kept)
            # Without a log criu has not even begun, and what it said is in its output.
            names = [log.name, *sorted(path.name for path in kept.iterdir())]
            error.details["criu_log"] = next(str(kept / name) for name in names if (kept / name).exists())
            _forget_oldest(failures)
        raise


def _copy(logs: Path, folder: Path) -> None:
    files.make_private_folder(folder.parent)
    files.make_private_folder(folder)
    for path in files.walk_regular_files(logs):
        copy = folder / path.name
        shutil.copyfile(path, copy)
        copy.chmod(files.PRIVATE_FILE)


def _forget_oldest(failures: Path) -> None:
    ids = sorted(path.name for path in failures.iterdir() if is_snapshot_id(path.name))
    for old in ids[:-_KEPT_MOST]:
        shutil.rmtree(failures / old)
