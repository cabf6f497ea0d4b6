"""What a command must not leave behind: journal entries, locks, staging folders, packet filters, open permissions."""

from __future__ import annotations

import re
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.command_line import CommandLine
from support.jobs import state
from support.shapes import Shape

# linux/netlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER: Final = 12
_REQUEST_DUMP: Final = 0x301
_GET_TABLE: Final = 10 << 8 | 1
_DONE: Final = 3
_ERROR: Final = 2
_TABLE_NAME: Final = 1


def assert_nothing_is_left(ckptctl: CommandLine) -> None:
    """No journal entry, no lock, no staging folder, nothing in the trash."""
    left = [path for folder in ("journal", "locks") for path in ckptctl.state.glob(f"{folder}/*.json")]
    left += [*ckptctl.store.glob("locks/*.json"), *ckptctl.store.glob("staging/*"), *ckptctl.store.glob("trash/*")]
    assert not left, left


def assert_goes_on(shape: Shape, steps: int = 3) -> None:
    """The job takes more steps, all of them right, and no process of it stands still."""
    shape.wait_steps(shape.steps() + steps)
    standing_still = [pid for pid in shape.job.processes() if state(pid) in "Tt"]
    assert not standing_still


def packet_filters(folder: Path) -> frozenset[str]:
    """The names of nftables tables that are there and were made by a CRIU with a log below `folder`.

    Others come and go with whatever else runs on this machine.
    """
    logs = "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))
    return _tables().intersection(re.findall(r"(?<= inet )CRIU-[0-9a-f-]+", logs))


def _tables() -> frozenset[str]:
    """The names of nftables tables that CRIU has made; none where the kernel has no nftables."""
    request = struct.pack("=IHHII", 20, _GET_TABLE, _REQUEST_DUMP, 1, 0) + struct.pack("=BBH", 0, 0, 0)
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError:
        return frozenset()
    with netlink:
        netlink.send(request)
        return frozenset(name for name in _names(netlink) if name.startswith("CRIU"))


def not_private(folder: Path) -> list[str]:
    """What below `folder`, itself included, others could read, as `0644 path`."""
    found = [folder, *folder.rglob("*")]
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in found if not path.is_symlink()}
    return [f"{mode:04o} {path}" for path, mode in modes.items() if mode & 0o077]


def _names(netlink: socket.socket) -> Iterator[str]:
    while True:
        answer = netlink.recv(1 << 16)
        while answer:
            length, kind = struct.unpack_from("=IH", answer)
            if kind in (_DONE, _ERROR):
                return
            yield from _attribute(answer[20:length], _TABLE_NAME)
            answer = answer[length + 3 & ~3 :]


def _attribute(attributes: bytes, wanted: int) -> Iterator[str]:
    while attributes:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == wanted:
            yield attributes[4:length].rstrip(b"\0").decode()
        attributes = attributes[length + 3 & ~3 :]
