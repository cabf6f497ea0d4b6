"""Which packet filters the kernel and the system offer: CRIU needs one to hold connections still."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
from typing import Final

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER: Final = 12
_GET_GENERATION: Final = 10 << 8 | 16
_REQUEST: Final = 0x1
_ERROR: Final = 2
_TIMEOUT_S: Final = 1.0
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def has_nftables() -> bool:
    """Whether the kernel answers to nf_tables: it is asked for its generation number, which changes nothing.

    CRIU brings its own libnftables, so that no program is needed. False also without CAP_NET_ADMIN.
    """
    header = struct.pack("=IHHII", 20, _GET_GENERATION, _REQUEST, 1, 0)
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as filters:
            filters.settimeout(_TIMEOUT_S)
            filters.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
            kind: int = struct.unpack_from("=IH", filters.recv(4096))[1]
            return kind != _ERROR
    return False


def has_iptables() -> bool:
    """Whether there is a program that CRIU can call to set iptables rules."""
    return shutil.which("iptables-restore", path=_SBIN) is not None
