"""The build id of a program or library: how CRIU tells whether a mapped file is still the one that was dumped."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

# elf(5): e_ident, e_phoff, e_phentsize and e_phnum of a 64-bit header, and a program header.
_MAGIC: Final = b"\x7fELF"
_CLASS_64: Final = 2
_LITTLE_ENDIAN: Final = 1
_NOTE: Final = 4
_GNU_BUILD_ID: Final = 3
_HEADER_BYTES: Final = 64
_PROGRAM_HEADER_BYTES: Final = 56
_LARGEST_NOTE_BYTES: Final = 1 << 20


def read_build_id(path: Path) -> str | None:
    """The GNU build id in hexadecimal; None for a file that has none, or is no 64-bit ELF file. Raises OSError."""
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[:4] != _MAGIC or header[4] != _CLASS_64 or header[5] != _LITTLE_ENDIAN:
            return None
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_bytes, count = struct.unpack_from("<HH", header, 54)
        if entry_bytes < _PROGRAM_HEADER_BYTES:
            return None
        file.seek(table)
        table_bytes = file.read(entry_bytes * count)
        for start in range(0, len(table_bytes) - _PROGRAM_HEADER_BYTES + 1, entry_bytes):
            kind, _flags, offset, _virtual, _physical, size = struct.unpack_from("<IIQQQQ", table_bytes, start)
            if kind == _NOTE and size <= _LARGEST_NOTE_BYTES:
                file.seek(offset)
                found = _build_id(file.read(size))
                if found:
                    return found
    return None


def _build_id(notes: bytes) -> str | None:
    position = 0
    while position + 12 <= len(notes):
        name_bytes, value_bytes, kind = struct.unpack_from("<III", notes, position)
        name = position + 12
        value = name + (name_bytes + 3) // 4 * 4
        if kind == _GNU_BUILD_ID and notes[name : name + name_bytes] == b"GNU\0":
            return notes[value : value + value_bytes].hex()
        position = value + (value_bytes + 3) // 4 * 4
    return None
