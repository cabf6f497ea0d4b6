"""Facts about this machine, gathered once. What cannot be found out is None or empty, never an error."""

from __future__ import annotations

import os
import platform
import re
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from ckptctl.host.firewall import has_iptables, has_nftables


class CgroupVersion(Enum):
    """How control groups are mounted (cgroups(7))."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Cpu:
    """Name and feature flags of the first processor, as /proc/cpuinfo tells them."""

    model: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FirstProcess:
    """Process 1 of our PID namespace: orphans become its children, and it must reap them.

    `zombies` is how many ended children it has not reaped at the moment.
    """

    name: str
    zombies: int


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine and what the user may do on it.

    `capabilities` are the effective ones, by their names in capabilities(7), and those that criu's file adds to them
    where an ordinary user runs it (`criu.program.with_own_capabilities`). `ptrace_scope` is that of Yama
    (0 to 3), None where the kernel has no Yama. `nftables` and `iptables` say which of the two can be used to
    block the connections of a tree while it is away.
    """

    hostname: str
    boot_id: str
    kernel: str
    kernel_version: tuple[int, ...]
    architecture: str
    cpu: Cpu
    memory_total_bytes: int
    memory_available_bytes: int
    page_size_bytes: int
    user_id: int
    capabilities: frozenset[str]
    nftables: bool
    iptables: bool
    cgroups: CgroupVersion
    first_process: FirstProcess
    ptrace_scope: int | None


# linux/capability.h, in the order of the numbers.
# fmt: off
CAPABILITIES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
# fmt: on


def read_machine() -> Machine:
    """Gather the facts; takes milliseconds and changes nothing."""
    memory = _colon_fields("/proc/meminfo")
    kernel = platform.release()
    return Machine(
        hostname=socket.gethostname(),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=kernel,
        kernel_version=version_of(kernel),
        architecture=platform.machine(),
        cpu=read_cpu(_text("/proc/cpuinfo")),
        memory_total_bytes=_kibibytes(memory.get("MemTotal", "0")),
        memory_available_bytes=_kibibytes(memory.get("MemAvailable", "0")),
        page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        user_id=os.geteuid(),
        capabilities=capability_names(int(_colon_fields("/proc/self/status").get("CapEff", "0"), 16)),
        nftables=has_nftables(),
        iptables=has_iptables(),
        cgroups=_cgroups(),
        first_process=_first_process(),
        ptrace_scope=_integer("/proc/sys/kernel/yama/ptrace_scope"),
    )


def version_of(release: str) -> tuple[int, ...]:
    """`6.18.44-fc-v669` as (6, 18, 44)."""
    match = re.match(r"\d+(\.\d+)*", release)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def capability_names(mask: int) -> frozenset[str]:
    """The names (`CAP_SYS_PTRACE`) of the bits in a mask of /proc/PID/status."""
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def all_capabilities() -> frozenset[str]:
    """The names of those that this kernel knows."""
    last = _integer("/proc/sys/kernel/cap_last_cap")
    return frozenset(CAPABILITIES if last is None else CAPABILITIES[: last + 1])


def read_cpu(cpuinfo: str) -> Cpu:
    """Model and flags of the first processor in the text of /proc/cpuinfo, whose names differ by architecture."""
    fields = _split_fields(cpuinfo.split("\n\n", 1)[0])
    model = fields.get("model name") or fields.get("CPU part", "") or fields.get("cpu", "")
    return Cpu(model, tuple(sorted((fields.get("flags") or fields.get("Features", "")).split())))


def _cgroups() -> CgroupVersion:
    mounts = [
        line.split(" - ", 1)[1].split()[0] for line in _text("/proc/self/mountinfo").splitlines() if " - " in line
    ]
    old, new = "cgroup" in mounts, "cgroup2" in mounts
    if old and new:
        return CgroupVersion.HYBRID
    return CgroupVersion.V1 if old else CgroupVersion.V2 if new else CgroupVersion.NONE


def _first_process() -> FirstProcess:
    """Counts the zombies among the children of process 1."""
    zombies = 0
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                after_name = _text(f"/proc/{entry.name}/stat").rpartition(") ")[2].split()
                zombies += after_name[:2] == ["Z", "1"]
    return FirstProcess(_text("/proc/1/comm"), zombies)


def _kibibytes(value: str) -> int:
    return int(value.split()[0]) * 1024


def _integer(path: str) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _colon_fields(path: str) -> dict[str, str]:
    return _split_fields(_text(path))


def _split_fields(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
