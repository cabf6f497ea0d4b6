"""Images that say another size of some files: for a restore that is to take the files as they are now.

CRIU compares the size of every file that is not appended to with the one in files.img, and has no option to leave that
out. So it is given a folder of links to the images, beside a files.img of its own.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.criu.container import read_entries

_FILES: Final = "files.img"
_MAGIC_BYTES: Final = 8


def with_sizes(images: Path, sizes: Mapping[str, int], overlay: Path) -> Path:
    """Make the folder `overlay` such that criu restores from it as from `images`, but for these sizes, by path.

    Raises ImageDamaged, FileTrouble, NoSpace.
    """
    files.make_private_folder(overlay)
    try:
        for image in images.iterdir():
            if image.name != _FILES:
                (overlay / image.name).symlink_to(image)
        (overlay / _FILES).unlink(missing_ok=True)
        files.write_durably(overlay / _FILES, _rewritten(images / _FILES, sizes))
    except OSError as error:
        raise files.trouble(error, f"{overlay} cannot be written") from error
    return overlay


def _rewritten(path: Path, sizes: Mapping[str, int]) -> bytes:
    with path.open("rb") as file:
        pieces = [file.read(_MAGIC_BYTES)]
    for _, entry in read_entries(path, "files", "file_entry"):
        if entry.HasField("reg") and entry.reg.HasField("size"):
            entry.reg.size = sizes.get(os.fsdecode(entry.reg.name), entry.reg.size)
        # Fields that our table does not know are kept by protobuf and written again.
        payload = entry.SerializeToString()
        pieces += [struct.pack("<I", len(payload)), payload]
    return b"".join(pieces)
