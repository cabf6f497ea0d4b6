"""The open files of a tree: files.img and the images that belong to it."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ckptctl.criu.container import damaged, member, read_entries
from ckptctl.criu.records import (
    Fifo,
    FileUse,
    InetSocket,
    OpenFiles,
    Pipe,
    PipeEnd,
    RegularFile,
    Remap,
    RemapKind,
    SocketState,
    Terminal,
    TerminalKind,
    UnixSocket,
)

Uses = Mapping[int, tuple[FileUse, ...]]
"""Which tasks hold a file open, by the file's id."""

_USK_EXTERN: Final = 1 << 0  # criu/sk-unix.c
_ADDRESS_WORDS: Final = (1, 4)  # IPv4 and IPv6, in words of four bytes in network order


@dataclass(slots=True)
class _Reader:
    path: Path
    uses: Uses
    remaps: Mapping[int, Remap]
    terminals_info: Mapping[int, Any]
    offset: int = 0
    regular: list[RegularFile] = field(default_factory=list)
    pipe_ends: dict[int, list[PipeEnd]] = field(default_factory=lambda: defaultdict(list))
    fifos: list[Fifo] = field(default_factory=list)
    unix: list[UnixSocket] = field(default_factory=list)
    inet: list[InetSocket] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)

    def add(self, entry: Any) -> None:
        kinds = {
            "reg": self._add_regular,
            "pipe": self._add_pipe_end,
            "fifo": self._add_fifo,
            "usk": self._add_unix,
            "isk": self._add_inet,
            "tty": self._add_terminal,
        }
        for name, adder in kinds.items():
            if entry.HasField(name):
                adder(getattr(entry, name), self.uses.get(entry.id, ()))

    def _add_regular(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        self.regular.append(
            RegularFile(
                file_id=entry.id,
                path=os.fsdecode(entry.name),
                flags=entry.flags,
                position_bytes=entry.pos,
                size_bytes=entry.size if entry.HasField("size") else None,
                mode=entry.mode if entry.HasField("mode") else None,
                build_id=struct.pack(f"<{len(entry.build_id)}I", *entry.build_id).hex(),
                mount_id=entry.mnt_id if entry.HasField("mnt_id") else -1,
                is_external=entry.ext,
                remap=self.remaps.get(entry.id),
                uses=uses,
            )
        )

    def _add_pipe_end(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        self.pipe_ends[entry.pipe_id].append(PipeEnd(entry.id, entry.flags, uses))

    def _add_fifo(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        regular = entry.regf_id if entry.HasField("regf_id") else None
        self.fifos.append(Fifo(entry.id, entry.pipe_id, regular, uses))

    def _add_unix(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        self.unix.append(
            UnixSocket(
                file_id=entry.id,
                inode=entry.ino,
                kind=entry.type,
                state=member(SocketState, entry.state, self.path, self.offset),
                peer_inode=entry.peer,
                name=entry.name,
                is_external=bool(entry.uflags & _USK_EXTERN),
                uses=uses,
            )
        )

    def _add_inet(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        self.inet.append(
            InetSocket(
                file_id=entry.id,
                inode=entry.ino,
                protocol=entry.proto,
                state=member(SocketState, entry.state, self.path, self.offset),
                local_address=self._address(entry.src_addr),
                local_port=entry.src_port,
                remote_address=self._address(entry.dst_addr),
                remote_port=entry.dst_port,
                reuses_address=entry.opts.reuseaddr,
                uses=uses,
            )
        )

    def _add_terminal(self, entry: Any, uses: tuple[FileUse, ...]) -> None:
        info = self.terminals_info.get(entry.tty_info_id)
        if info is None:
            raise damaged(self.path, self.offset, f"terminal {entry.tty_info_id} is not in tty-info.img")
        self.terminals.append(
            Terminal(
                file_id=entry.id,
                kind=member(TerminalKind, info.type, self.path, self.offset),
                device=info.rdev,
                index=info.pty.index if info.HasField("pty") else None,
                session_id=info.sid,
                uses=uses,
            )
        )

    def _address(self, words: Iterable[int]) -> str:
        found = tuple(words)
        if len(found) not in _ADDRESS_WORDS:
            raise damaged(self.path, self.offset, f"an address of {len(found)} words")
        packed = struct.pack(f"<{len(found)}I", *found)
        return str(ipaddress.ip_address(packed))


def read_open_files(folder: Path, uses: Uses) -> OpenFiles:
    """Every open file, with the tasks that `uses` says hold it. Raises ImageDamaged."""
    path = folder / "files.img"
    reader = _Reader(path, uses, _read_remaps(folder), _read_terminals_info(folder))
    for offset, entry in read_entries(path, "files", "file_entry"):
        reader.offset = offset
        reader.add(entry)
    return OpenFiles(
        regular=tuple(reader.regular),
        pipes=tuple(Pipe(pipe_id, tuple(ends)) for pipe_id, ends in reader.pipe_ends.items()),
        fifos=tuple(reader.fifos),
        unix_sockets=tuple(reader.unix),
        inet_sockets=tuple(reader.inet),
        terminals=tuple(reader.terminals),
    )


def _read_remaps(folder: Path) -> dict[int, Remap]:
    path = folder / "remap-fpath.img"
    if not path.exists():
        return {}
    return {
        entry.orig_id: Remap(member(RemapKind, entry.remap_type, path, offset), entry.remap_id)
        for offset, entry in read_entries(path, "remap-fpath", "remap_file_path_entry")
    }


def _read_terminals_info(folder: Path) -> dict[int, Any]:
    path = folder / "tty-info.img"
    if not path.exists():
        return {}
    return {entry.id: entry for _, entry in read_entries(path, "tty-info", "tty_info_entry")}
