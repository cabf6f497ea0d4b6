"""Checks of what this machine has to give: memory, space, open files, control groups, the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from ckptctl.host.limits import Limits
from ckptctl.host.machine import Machine
from ckptctl.host.mounts import IN_MEMORY
from ckptctl.host.place import Mount, Place
from ckptctl.preflight.check import Problem
from ckptctl.preflight.machine_check import MachineCheck, about, about_both, error, ok, skipped, warning
from ckptctl.preflight.survey import Clock, Facts
from ckptctl.preflight.unknown import Unknown
from ckptctl.units import format_duration, format_size

_GROUP: Final = "host"
_LEAST_MEMORY_BYTES: Final = 512 << 20
_LEAST_SPACE_BYTES: Final = 16 << 20
_LEAST_SHARED_BYTES: Final = 64 << 20
_LEAST_FILES: Final = 4096
# A clock before this was never set: it is older than this program.
_EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
# Machines that share a store agree to about this much without anything being wrong.
_CLOCK_SLACK: Final = timedelta(seconds=60)
_NETWORK: Final = frozenset({"nfs", "nfs4", "lustre", "beegfs", "gpfs", "ceph", "cifs", "smb3", "afs", "panfs"})
# Object stores behind FUSE: a rename there copies, or is no single step, and fsync may do nothing.
_OBJECTS: Final = ("s3fs", "goofys", "gcsfuse", "rclone", "mountpoint-s3", "blobfuse")


def _memory(machine: Machine, limits: Limits) -> Iterator[Problem]:
    group = limits.control_group
    available, where = machine.memory_available_bytes, "of the machine"
    if group.memory_limit_bytes is not None:
        left = max(0, group.memory_limit_bytes - (group.memory_used_bytes or 0))
        if left < available:
            available, where = left, f"of the control group {group.path}"
    data = {"available_bytes": available, "total_bytes": machine.memory_total_bytes}
    if available < _LEAST_MEMORY_BYTES:
        yield warning(f"Only {format_size(available)} {where} are available.", **data)
    else:
        total = format_size(machine.memory_total_bytes)
        yield ok(f"{format_size(available)} of memory {where} are available ({total} in all).", **data)


def _space(facts: Facts) -> Iterator[Problem]:
    place, machine = facts.place, facts.machine
    if isinstance(place, Unknown):
        yield error(place.reason, "See whether the folder can be listed; mount its file system again.")
    elif isinstance(machine, Unknown):
        yield skipped(machine.reason)
    else:
        yield from _room(place, machine)


def _room(place: Place, machine: Machine) -> Iterator[Problem]:
    data = {"path": place.path, "free_bytes": place.free_bytes, "total_bytes": place.total_bytes}
    free = format_size(place.free_bytes)
    in_use = machine.memory_total_bytes - machine.memory_available_bytes
    if not place.writable:
        yield error(
            f"The store's folder {place.path} cannot be written to.",
            "Run ckptctl as a user who may, or name another folder in $CKPTCTL_STORE.",
            **data,
        )
    elif place.free_bytes < _LEAST_SPACE_BYTES:
        yield error(f"The file system of {place.path} is full ({free} free).", **data)
    elif place.free_bytes < in_use:
        yield warning(
            f"{free} are free at {place.path}, less than the {format_size(in_use)} of memory that are in use here.",
            **data,
        )
    else:
        yield ok(f"{free} are free at {place.path}.", **data)


def _file_system(mount: Mount) -> Iterator[Problem]:
    data = {"kind": mount.kind, "mount": mount.point}
    where = f"The store lies on {mount.kind} ({mount.point})"
    if mount.kind in IN_MEMORY:
        yield warning(f"{where}, in memory: after a reboot its snapshots are gone.", **data)
    elif mount.kind == "overlay":
        yield warning(
            f"{where}, the writable layer of a container: its snapshots go when the container does.",
            "Put the store on a volume: $CKPTCTL_STORE.",
            **data,
        )
    elif mount.kind.startswith("fuse.") and any(name in mount.kind for name in _OBJECTS):
        yield warning(f"{where}: a rename is not one step there, so a snapshot may appear half-made.", **data)
    elif mount.kind.startswith("nfs") and {"nolock", "local_lock=all", "local_lock=flock"} & set(mount.options):
        yield warning(
            f"{where} without locks between machines: two of them may work on the same run at once.",
            "Mount it without nolock and local_lock, or use the store from one machine at a time.",
            **data,
        )
    elif mount.kind == "lustre" and "flock" not in mount.options:
        yield warning(
            f"{where} without locks between machines: two of them may work on the same run at once.",
            "Mount it with the option flock, or use the store from one machine at a time.",
            **data,
        )
    else:
        network = ", shared over the network; fsync waits for its server" if mount.kind in _NETWORK else ""
        yield ok(f"{where}{network}.", **data)


def _shared_memory(limits: Limits) -> Iterator[Problem]:
    size, free = limits.shared_memory_bytes, limits.shared_memory_free_bytes
    if size is None or free is None:
        yield warning("/dev/shm is not mounted.", "Mount it: mount -t tmpfs tmpfs /dev/shm")
        return
    data = {"size_bytes": size, "free_bytes": free}
    if free < _LEAST_SHARED_BYTES:
        yield warning(f"Of the {format_size(size)} of /dev/shm only {format_size(free)} are free.", **data)
    else:
        yield ok(f"{format_size(free)} are free in /dev/shm.", **data)


def _open_files(limits: Limits, machine: Machine) -> Iterator[Problem]:
    most = limits.open_files_top if "CAP_SYS_RESOURCE" in machine.capabilities else limits.open_files_max
    data = {"now": limits.open_files, "at_most": most}
    if most < _LEAST_FILES:
        yield warning(f"This user may open {most} files at most; criu needs as many as the job has.", **data)
    else:
        yield ok(f"Up to {most} files may be open.", **data)


def _control_groups(machine: Machine, limits: Limits) -> Iterator[Problem]:
    group = limits.control_group
    may = "may be divided" if group.delegated else "may not be divided by this user"
    yield ok(
        f"Control groups are {machine.cgroups.value}; a restored job joins {group.path}, which {may}.",
        version=machine.cgroups.value,
        path=group.path,
        delegated=group.delegated,
        memory_limit_bytes=group.memory_limit_bytes,
    )


def _clock(clock: Clock) -> Iterator[Problem]:
    now = clock.now.astimezone(UTC)
    data = {"now": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    if now < _EARLIEST:
        yield warning(f"The clock says {now:%Y-%m-%d %H:%M} UTC, which cannot be.", **data)
    elif clock.newest_snapshot is not None and now < clock.newest_snapshot - _CLOCK_SLACK:
        behind = format_duration((clock.newest_snapshot - now).total_seconds())
        yield warning(f"The clock is {behind} before the newest snapshot of the store.", **data)
    else:
        yield ok(f"The clock says {now:%Y-%m-%d %H:%M} UTC.", **data)


CHECKS: Final = (
    MachineCheck(
        "memory",
        _GROUP,
        "While a job is dumped or restored, criu and the saved GPU memory need memory beside the job's own.",
        "End what is not needed, or raise the limit of the control group.",
        about_both(lambda facts: facts.machine, lambda facts: facts.limits, _memory),
    ),
    MachineCheck(
        "store-space",
        _GROUP,
        "A snapshot is about as large as the memory and the GPU memory of the job.",
        "Remove old snapshots (ckptctl rm), or name a store on a larger file system in $CKPTCTL_STORE.",
        _space,
    ),
    MachineCheck(
        "store-file-system",
        _GROUP,
        "A snapshot must outlive the machine's crash and appear all at once; machines that share a store need locks.",
        "Name a store on a disk in $CKPTCTL_STORE.",
        about(lambda facts: facts.mount, _file_system),
    ),
    MachineCheck(
        "shared-memory",
        _GROUP,
        "What processes share through /dev/shm, as DataLoader workers do, is put back there by a restore.",
        "Enlarge it: mount -o remount,size=8G /dev/shm, or start the container with --shm-size=8g.",
        about(lambda facts: facts.limits, _shared_memory),
    ),
    MachineCheck(
        "open-files",
        _GROUP,
        "A restore opens every file of every process in criu first, and numbers above the limit are refused.",
        "Raise the hard limit: ulimit -Hn 65536, LimitNOFILE= of the service, or --ulimit nofile of the container.",
        about_both(lambda facts: facts.limits, lambda facts: facts.machine, _open_files),
    ),
    MachineCheck(
        "control-groups",
        _GROUP,
        "A restored job joins the control group of the restore, and lives under its limits.",
        "Run the restore in the control group that the job shall live in.",
        about_both(lambda facts: facts.machine, lambda facts: facts.limits, _control_groups),
    ),
    MachineCheck(
        "clock",
        _GROUP,
        "Snapshots are ordered by their time: a clock that goes back makes an older one the latest.",
        "Set the clock: timedatectl set-ntp true.",
        about(lambda facts: facts.clock, _clock),
    ),
)
