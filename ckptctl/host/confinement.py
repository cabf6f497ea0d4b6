"""What keeps this process from doing what its user may do: security modules, filters, namespaces, containers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# linux/proc_ns.h: the number of the first PID namespace is part of the interface.
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
_ALL_USERS: Final = 1 << 32
_MARKS: Final = (("docker", "docker"), ("containerd", "containerd"), ("kubepods", "Kubernetes"), ("libpod", "Podman"))


@dataclass(frozen=True, slots=True)
class Confinement:
    """`apparmor` and `selinux` are our own profile and context, None where the module is not active.

    `container` names its kind, None on bare metal or in a virtual machine. `seccomp` says whether a filter is on us,
    `first_user_namespace` and `first_pid_namespace` whether ours are those of the host.
    """

    security_modules: tuple[str, ...]
    apparmor: str | None
    selinux: str | None
    selinux_enforcing: bool
    seccomp: bool
    first_user_namespace: bool
    first_pid_namespace: bool
    container: str | None


def read_confinement(root: Path = Path("/")) -> Confinement:
    """Read it from /proc and /sys; what is not there is not active."""
    modules = tuple(name for name in _text(root / "sys/kernel/security/lsm").split(",") if name)
    apparmor = _text(root / "sys/module/apparmor/parameters/enabled") == "Y"
    enforce = _text(root / "sys/fs/selinux/enforce")
    label = _text(root / "proc/self/attr/current").rstrip("\0")
    return Confinement(
        security_modules=modules,
        apparmor=(_text(root / "proc/self/attr/apparmor/current") or label or None) if apparmor else None,
        selinux=(label or None) if enforce else None,
        selinux_enforcing=enforce == "1",
        seccomp=_status(root).get("Seccomp", "0") != "0",
        first_user_namespace=_maps_everyone(_text(root / "proc/self/uid_map")),
        first_pid_namespace=_link(root / "proc/self/ns/pid") == _FIRST_PID_NAMESPACE,
        container=_container(root),
    )


def _container(root: Path) -> str | None:
    """As systemd-detect-virt(1) finds it: the marks that container engines leave, then the names of control groups."""
    said = _text(root / "run/systemd/container")
    if said:
        return said
    for variable in _text(root / "proc/1/environ").split("\0"):
        if variable.startswith("container="):
            return variable.removeprefix("container=")
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    groups = _text(root / "proc/1/cgroup") + _text(root / "proc/self/cgroup")
    return next((name for mark, name in _MARKS if mark in groups), None)


def _maps_everyone(uid_map: str) -> bool:
    """Whether all user ids are mapped to themselves, as in the first user namespace alone (user_namespaces(7))."""
    fields = uid_map.split()
    return len(fields) == 3 and fields[:2] == ["0", "0"] and int(fields[2]) >= _ALL_USERS - 1


def _status(root: Path) -> dict[str, str]:
    lines = _text(root / "proc/self/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
