"""The files in a snapshot's folder `images`, as the manifest names them (see ckptctl.store.manifest)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Annotated, Final

from ckptctl.store.codec import Size

DIGEST_ALGORITHM: Final = "blake3"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One file in the snapshot's folder `images`."""

    name: Annotated[str, "path below `images`"]
    size_bytes: Annotated[Size, "size"]
    digest: Annotated[str, "digest of its contents, in hexadecimal"]

    def __post_init__(self) -> None:
        _check_image(self.name, self.digest)


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """The file in the folder `images` that holds the memory of the processes in checked blocks."""

    name: Annotated[str, "path below `images`"]
    size_bytes: Annotated[Size, "size of the file"]
    contents_bytes: Annotated[Size, "size of the images in it, as CRIU wrote them"]
    zero_bytes: Annotated[Size, "how much of that are blocks of zeros, which take no room"]
    digest: Annotated[str, "digest of its index, which has the digests of all blocks, in hexadecimal"]

    def __post_init__(self) -> None:
        _check_image(self.name, self.digest)


@dataclass(frozen=True, slots=True)
class Images:
    """Every file of the folder `images`."""

    algorithm: Annotated[str, 'how the digests are made: "blake3"']
    files: Annotated[tuple[ImageRecord, ...], "sorted by name; without the container"]
    container: Annotated[
        ContainerRecord | None, "where the memory is; null where CRIU wrote it into files of its own"
    ] = None

    def __post_init__(self) -> None:
        if self.algorithm != DIGEST_ALGORITHM:
            raise ValueError(f"the digest algorithm {self.algorithm[:40]!a} is not known")
        names = [record.name for record in self.files]
        names += [self.container.name] if self.container else []
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")

    @property
    def size_bytes(self) -> int:
        """The sum of all sizes, as they are on the disk."""
        return sum(record.size_bytes for record in self.files) + (self.container.size_bytes if self.container else 0)


def _check_image(name: str, digest: str) -> None:
    if not is_image_name(name):
        raise ValueError(f"{name[:80]!a} is not a name of a file below the folder of images")
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a digest has 64 hexadecimal digits")


def is_image_name(name: str) -> bool:
    """Whether `name` leads to a file below a folder and nowhere else, in only one way of writing it."""
    parts = name.split("/")
    return "\0" not in name and all(part not in {"", ".", ".."} for part in parts) and len(os.fsencode(name)) < 4096
