"""What the kernel was built with and what it answers: options from its own record, features by asking it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gzip
import mmap
import os
import platform
import re
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_SYS_CLONE3: Final = 435  # the same on every architecture
_SYS_USERFAULTFD: Final = {"x86_64": 323, "aarch64": 282}
_SOFT_DIRTY_BIT: Final = 55  # Documentation/admin-guide/mm/pagemap.rst
_OPTION: Final = re.compile(r"^CONFIG_(\w+)=[ym]$", re.MULTILINE)


class Offer(Enum):
    """Whether the kernel has a feature for this user."""

    HERE = "here"
    FORBIDDEN = "forbidden"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Kernel:
    """`options` are those that are built in or modules, without `CONFIG_`; empty where `options_source` is None.

    `checkpoint_restore` is asked of /proc, not of the options. `last_pid_writable` is the older way to choose the pid
    of a new process, `clone3_set_tid` the newer one (Linux 5.5). `glibc` is the version of this system's C library.
    """

    options_source: str | None
    options: frozenset[str]
    checkpoint_restore: bool
    clone3_set_tid: bool
    last_pid_writable: bool
    userfaultfd: Offer
    soft_dirty: bool
    glibc: tuple[int, ...]


def read_kernel(root: Path = Path("/")) -> Kernel:
    """Ask; nothing is changed and no process is made. What cannot be read counts as not there."""
    source, options = read_options(root, platform.release())
    last_pid = root / "proc/sys/kernel/ns_last_pid"
    return Kernel(
        options_source=source,
        options=options,
        checkpoint_restore=last_pid.exists() or (root / "proc/self/map_files").is_dir(),
        clone3_set_tid=_clone3_set_tid(),
        last_pid_writable=os.access(last_pid, os.W_OK),
        userfaultfd=_userfaultfd(),
        soft_dirty=_soft_dirty(),
        glibc=_glibc(),
    )


def read_options(root: Path, release: str) -> tuple[str | None, frozenset[str]]:
    """Where the kernel's configuration was found, and the options that are on; (None, empty) without one."""
    for name in ("proc/config.gz", f"boot/config-{release}", f"lib/modules/{release}/config"):
        with contextlib.suppress(OSError, EOFError):
            raw = (root / name).read_bytes()
            text = gzip.decompress(raw) if name.endswith(".gz") else raw
            return f"/{name}", frozenset(_OPTION.findall(text.decode(errors="replace")))
    return None, frozenset()


def _clone3_set_tid() -> bool:
    """Kernels before 5.5 refuse arguments that they do not know with E2BIG, and seccomp filters with ENOSYS or EPERM.

    The exit signal is impossible, so that no kernel makes a process of this.
    """
    impossible_signal, somewhere = 1 << 40, 1
    arguments = struct.pack("=10Q", 0, 0, 0, 0, impossible_signal, 0, 0, 0, somewhere, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(_SYS_CLONE3), arguments, ctypes.c_size_t(len(arguments)))
    return ctypes.get_errno() == errno.EINVAL


def _userfaultfd() -> Offer:
    number = _SYS_USERFAULTFD.get(platform.machine())
    if number is None:
        return Offer.MISSING
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(ctypes.c_long(number), ctypes.c_int(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor >= 0:
        os.close(descriptor)
        return Offer.HERE
    return Offer.FORBIDDEN if ctypes.get_errno() == errno.EPERM else Offer.MISSING


def _soft_dirty() -> bool:
    """A page that was just written has the bit in /proc/self/pagemap where the kernel keeps it."""
    with contextlib.suppress(OSError, struct.error):
        with mmap.mmap(-1, mmap.PAGESIZE) as page, open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            page[0] = 1
            view = ctypes.c_char.from_buffer(page)
            address = ctypes.addressof(view)
            del view
            pagemap.seek(address // mmap.PAGESIZE * 8)
            entry: int = struct.unpack("=Q", pagemap.read(8))[0]
            return bool(entry >> _SOFT_DIRTY_BIT & 1)
    return False


def _glibc() -> tuple[int, ...]:
    """Empty with another C library."""
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"\d+(\.\d+)+", os.confstr("CS_GNU_LIBC_VERSION") or "")
        return tuple(int(part) for part in found.group().split(".")) if found else ()
    return ()
