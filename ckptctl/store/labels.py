"""What is said of a snapshot after its dump: a pin, other tags, whether its bytes were verified.

It lies in one small file in the snapshot's folder, so that it goes wherever the snapshot goes; the manifest is never
written again, and no digest covers this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store import codec
from ckptctl.store.codec import Misshapen
from ckptctl.store.layout import SnapshotFolder

_VERSION: Final = 1
# A pin and some tags; what is far larger was not written by ckptctl.
_LARGEST_BYTES: Final = 1 << 20


class LabelsDamaged(CkptctlError):
    """The pin and the tags of a snapshot cannot be read."""

    code = "E_LABELS"
    exit_status = ExitStatus.INTEGRITY


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned snapshot is not removed."""

    since: Annotated[datetime, "since when"]
    reason: Annotated[str | None, "why"] = None


@dataclass(frozen=True, slots=True)
class Verification:
    """Every byte was read and compared with its digest."""

    at: Annotated[datetime, "when"]
    sound: Annotated[bool, "whether all were right"]


@dataclass(frozen=True, slots=True)
class Labels:
    """The contents of the file."""

    pin: Annotated[Pin | None, "null where it is not pinned"] = None
    tags: Annotated[tuple[str, ...] | None, "tags instead of those in the manifest; null: as there"] = None
    verification: Annotated[Verification | None, "the last one; null where there was none"] = None


def read(folder: SnapshotFolder) -> Labels:
    """The labels of a snapshot; empty ones where nothing was ever said. Raises LabelsDamaged."""
    path = folder.labels
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            raw = codec.loads(file.read(_LARGEST_BYTES))
        if raw.get("version") != _VERSION:
            raise Misshapen(f"has the version {raw.get('version')!a}, not {_VERSION}")
        return codec.decode(Labels, raw)
    except FileNotFoundError:
        return Labels()
    except (OSError, Misshapen) as error:
        raise LabelsDamaged(
            f"The labels {path} cannot be read: {error}.", hint="Remove that file, then pin and tag again."
        ) from error


def write(folder: SnapshotFolder, labels: Labels) -> None:
    """Replace the labels of a snapshot, durably and all at once; the caller holds the lock of the run's labels.

    Raises files.FileTrouble and files.NoSpace.
    """
    files.write_atomically(folder.labels, codec.dumps(labels, version=_VERSION))
