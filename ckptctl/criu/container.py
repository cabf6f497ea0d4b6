"""The container format of CRIU's images: magics, then entries of a length and a message.

Source: criu/include/magic.h, lib/pycriu/images/images.py. Inventory has its own magic alone; all others have a common
one before it. Some entries are followed by raw data: those files are read for their first entry only.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from ckptctl import files
from ckptctl.criu import schema
from ckptctl.errors import CkptctlError, ExitStatus

if TYPE_CHECKING:
    from google.protobuf.message import Message

_Member = TypeVar("_Member", bound=Enum)

_COMMON: Final = 0x54564319
_SERVICE: Final = 0x55105940
_MAGIC: Final = {
    "inventory": (0x58313116,),
    "pstree": (_COMMON, 0x50273030),
    "core": (_COMMON, 0x55053847),
    "ids": (_COMMON, 0x54432030),
    "fs": (_COMMON, 0x51403912),
    "mm": (_COMMON, 0x57492820),
    "fdinfo": (_COMMON, 0x56213732),
    "files": (_COMMON, 0x56303138),
    "tty-info": (_COMMON, 0x59453036),
    "remap-fpath": (_COMMON, 0x59133954),
    "ghost-file": (_COMMON, 0x52583605),
    "stats": (_SERVICE, 0x57093306),
}
# No message that we read comes near: a larger one is damage, and must not be loaded into memory.
_LARGEST_ENTRY_BYTES: Final = 64 << 20


class ImageDamaged(CkptctlError):
    """An image file of CRIU is missing, cut off or altered."""

    code = "E_IMAGE_DAMAGED"
    exit_status = ExitStatus.INTEGRITY


def damaged(path: Path, offset_bytes: int, what: str) -> ImageDamaged:
    """The error for an image file that says something impossible at `offset_bytes`."""
    return ImageDamaged(
        f"The image file {path.name} is damaged at byte {offset_bytes}: {what}.",
        hint="Restore another snapshot; this one has lost data.",
        details={"file": str(path), "offset": offset_bytes},
    )


def read_entries(path: Path, kind: str, message: str) -> Iterator[tuple[int, Any]]:
    """Yield (offset, decoded message) of every entry. Raises ImageDamaged, and FileTrouble where reading fails."""
    try:
        with path.open("rb") as file:
            remaining = os.fstat(file.fileno()).st_size
            remaining -= _check_magic(file, path, kind)
            while remaining > 0:
                offset = file.tell()
                payload = _read_payload(file, path, remaining)
                remaining -= 4 + len(payload)
                yield offset, _decode(message, payload, path, offset)
    except FileNotFoundError as error:
        raise damaged(path, 0, "it is missing") from error
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be read") from error


def read_first(path: Path, kind: str, message: str) -> Any:
    """The first entry of a file that must have one. Raises as `read_entries`."""
    for _, entry in read_entries(path, kind, message):
        return entry
    raise damaged(path, 0, "it holds nothing")


def member(kind: type[_Member], value: int, path: Path, offset_bytes: int) -> _Member:
    """The member of an enum that an image names by number. Raises ImageDamaged for a number that is none."""
    try:
        return kind(value)
    except ValueError as error:
        raise damaged(path, offset_bytes, f"{value} is no {kind.__name__}") from error


def _check_magic(file: BinaryIO, path: Path, kind: str) -> int:
    expected = struct.pack(f"<{len(_MAGIC[kind])}I", *_MAGIC[kind])
    if file.read(len(expected)) != expected:
        raise damaged(path, 0, f"it does not begin like a {kind} image")
    return len(expected)


def _read_payload(file: BinaryIO, path: Path, remaining_bytes: int) -> bytes:
    offset = file.tell()
    head = file.read(4)
    if len(head) < 4:
        raise damaged(path, offset, "it is cut off")
    size = int.from_bytes(head, "little")
    if size > min(remaining_bytes - 4, _LARGEST_ENTRY_BYTES):
        raise damaged(path, offset, f"an entry of {size} bytes is longer than the rest of the file")
    payload = file.read(size)
    if len(payload) < size:
        raise damaged(path, offset, "it is cut off")
    return payload


def _decode(name: str, payload: bytes, path: Path, offset: int) -> Message:
    from google.protobuf.message import DecodeError

    entry = schema.message_class(name)()
    try:
        entry.ParseFromString(payload)
    except (DecodeError, RuntimeError) as error:
        raise damaged(path, offset, f"it holds no {name}") from error
    if not entry.IsInitialized():
        raise damaged(path, offset, f"its {name} is incomplete")
    return entry
