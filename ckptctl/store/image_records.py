"""The files in a snapshot's folder `images`, as the manifest names them (see ckptctl.store.manifest)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Annotated, Final

from ckptctl.images.levels import Compression
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
class PackRecord:
    """The container of an earlier snapshot, of which this one has a link: it is whole whatever becomes of that one."""

    name: Annotated[str, "path below `images`"]
    size_bytes: Annotated[Size, "size of the file"]

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """The file in the folder `images` that holds the memory of the processes in checked blocks."""

    name: Annotated[str, "path below `images`"]
    size_bytes: Annotated[Size, "size of the file"]
    contents_bytes: Annotated[Size, "size of the images in it, as CRIU wrote them"]
    zero_bytes: Annotated[Size, "how much of that are blocks of zeros, which take no room"]
    digest: Annotated[str, "digest of its index, which has the digests of all blocks, in hexadecimal"]
    shared_bytes: Annotated[Size, "how much of that was stored already: before, in `packs`, or in the same dump"] = 0
    compression: Annotated[Compression, "how the rest was compressed"] = Compression.OFF
    packs: Annotated[tuple[PackRecord, ...], "the containers of earlier snapshots of the run that have the rest"] = ()

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
        names += [self.container.name, *(pack.name for pack in self.container.packs)] if self.container else []
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")

    @property
    def size_bytes(self) -> int:
        """What the snapshot stores itself, without what it shares with earlier ones."""
        return sum(record.size_bytes for record in self.files) + (self.container.size_bytes if self.container else 0)

    @property
    def shared_bytes(self) -> int:
        """How much of the contents was stored already; see ContainerRecord."""
        return self.container.shared_bytes if self.container else 0

    @property
    def contents_bytes(self) -> int:
        """What CRIU wrote, as large as its own files would be."""
        return sum(record.size_bytes for record in self.files) + (
            self.container.contents_bytes if self.container else 0
        )


def _check_name(name: str) -> None:
    if not is_image_name(name):
        raise ValueError(f"{name[:80]!a} is not a name of a file below the folder of images")


def _check_image(name: str, digest: str) -> None:
    _check_name(name)
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a digest has 64 hexadecimal digits")


def is_image_name(name: str) -> bool:
    """Whether `name` leads to a file below a folder and nowhere else, in only one way of writing it."""
    parts = name.split("/")
    return "\0" not in name and all(part not in {"", ".", ".."} for part in parts) and len(os.fsencode(name)) < 4096
