"""Facts of other machines, as `gather` gives them there: what their systems, drivers and clusters are known to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from ckptctl.criu.program import Criu
from ckptctl.host.confinement import Confinement
from ckptctl.host.gpu import ComputeMode, Gpu, GpuFacts, GpuProcess
from ckptctl.host.kernel import Kernel, Offer
from ckptctl.host.limits import ControlGroup, Limits
from ckptctl.host.machine import CAPABILITIES, CgroupVersion, Cpu, FirstProcess, Machine, version_of
from ckptctl.host.place import Mount, Place
from ckptctl.preflight.cluster_facts import SlurmFacts
from ckptctl.preflight.criu_facts import FEATURES, CriuFacts
from ckptctl.preflight.cuda_facts import CudaFacts
from ckptctl.preflight.survey import Clock, Facts
from ckptctl.preflight.unknown import Unknown

GIB: Final = 1 << 30
NOW: Final = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
_NEEDED_OPTIONS: Final = frozenset(
    [
        "CHECKPOINT_RESTORE",
        "NAMESPACES",
        "UNIX_DIAG",
        "INET_DIAG",
        "INET_UDP_DIAG",
        "NETLINK_DIAG",
        "PACKET_DIAG",
        "EPOLL",
        "EVENTFD",
        "FHANDLE",
        "MEMFD_CREATE",
        "USERFAULTFD",
        "MEM_SOFT_DIRTY",
    ]
)
_DOCKER_CAPABILITIES: Final = frozenset(
    [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ]
)
_OWN: Final = CriuFacts(
    Criu(Path("/opt/ckptctl/criu/bin/criu"), (4, 2, 1), "scripts/install-criu"),
    looks_good=True,
    said=("Looks good.",),
    features=frozenset(FEATURES),
    plugin_folder="/usr/lib/criu/",
)
_NO_CUDA: Final = CudaFacts(
    module=None,
    library=None,
    library_version=None,
    hardware=0,
    devices=(),
    nvml=GpuFacts(None, (), "NVIDIA's management library cannot be used (NVML Shared Library Not Found)"),
    mps=(),
    utility=None,
    bindings=None,
)

UBUNTU_24: Final = Facts(
    clock=Clock(NOW, NOW - timedelta(hours=1)),
    machine=Machine(
        hostname="node7",
        boot_id="5d0c1e8e-6f0e-4f8e-9d52-1f2f0f6a3c11",
        kernel="6.8.0-87-generic",
        kernel_version=(6, 8, 0),
        architecture="x86_64",
        cpu=Cpu("Intel(R) Xeon(R) Platinum 8480C", ("avx", "avx2", "avx512f", "fma", "sse4_2")),
        memory_total_bytes=2048 * GIB,
        memory_available_bytes=1900 * GIB,
        page_size_bytes=4096,
        user_id=0,
        capabilities=frozenset(CAPABILITIES),
        nftables=True,
        iptables=True,
        cgroups=CgroupVersion.V2,
        first_process=FirstProcess("systemd", 0),
        ptrace_scope=1,
    ),
    kernel=Kernel(
        options_source="/boot/config-6.8.0-87-generic",
        options=_NEEDED_OPTIONS,
        checkpoint_restore=True,
        clone3_set_tid=True,
        last_pid_writable=True,
        userfaultfd=Offer.HERE,
        soft_dirty=True,
        glibc=(2, 39),
    ),
    confinement=Confinement(
        security_modules=("lockdown", "capability", "landlock", "yama", "apparmor"),
        apparmor="unconfined",
        selinux=None,
        selinux_enforcing=False,
        seccomp=False,
        first_user_namespace=True,
        first_pid_namespace=True,
        container=None,
    ),
    limits=Limits(
        open_files=1024,
        open_files_max=1048576,
        open_files_top=1048576,
        shared_memory_bytes=1024 * GIB,
        shared_memory_free_bytes=1020 * GIB,
        control_group=ControlGroup("/user.slice/user-0.slice/session-3.scope", True, None, None),
    ),
    mount=Mount("/", "ext4", ("rw", "relatime")),
    place=Place("/var/lib/ckptctl", 3000 * GIB, 3500 * GIB, True),
    criu=_OWN,
    cuda=_NO_CUDA,
    slurm=None,
)


def known(fact: Any) -> Any:
    """A fact that these machines have, for `replace`."""
    assert not isinstance(fact, Unknown)
    return fact


def on(facts: Facts, **changes: Mapping[str, object]) -> Facts:
    """The facts with some fields of some groups changed: `on(facts, machine={"user_id": 1000})`."""
    groups: dict[str, Any] = {name: replace(known(getattr(facts, name)), **each) for name, each in changes.items()}
    return replace(facts, **groups)


def kernel(facts: Facts, release: str, glibc: tuple[int, ...]) -> Facts:
    """The same machine with another kernel and C library."""
    return on(
        facts,
        machine={"kernel": release, "kernel_version": version_of(release)},
        kernel={"options_source": f"/boot/config-{release}", "glibc": glibc},
    )


def criu(path: str, version: tuple[int, ...], **changes: Any) -> CriuFacts:
    """A criu of PATH."""
    return replace(_OWN, program=Criu(Path(path), version, "PATH"), **changes)


def gpus(driver: str, count: int = 2, **changes: Any) -> Facts:
    """A machine of H200s with everything in order for this driver."""
    each = Gpu(
        index=0,
        uuid="",
        model="NVIDIA H200",
        total_bytes=141 * GIB,
        free_bytes=131 * GIB,
        used_bytes=10 * GIB,
        persistence=True,
        compute_mode=ComputeMode.DEFAULT,
        mig=False,
        processes=(GpuProcess(4711, 10 * GIB),),
    )
    cards = tuple(replace(each, index=number, uuid=f"GPU-{number:08x}-aaaa") for number in range(count))
    cuda = CudaFacts(
        module=driver,
        library="/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        library_version=driver,
        hardware=count,
        devices=("nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"),
        nvml=GpuFacts(driver, cards),
        mps=(),
        utility=None,
        bindings="13.5.0",
    )
    return replace(UBUNTU_24, cuda=replace(cuda, **changes))


def cards(facts: Facts, *changes: Mapping[str, object]) -> Facts:
    """The machine with its GPUs changed, one mapping for each."""
    nvml: GpuFacts = known(facts.cuda).nvml
    changed = tuple(replace(gpu, **each) for gpu, each in zip(nvml.gpus, changes, strict=True))  # type: ignore[arg-type]
    return on(facts, cuda={"nvml": replace(nvml, gpus=changed)})


def slurm(properties: Mapping[str, str], signal: str | None, **changes: Any) -> Facts:
    """A job of Slurm 24.11 in a partition that preempts with two minutes of grace."""
    facts = SlurmFacts(
        job_id="4242",
        scontrol="/usr/bin/scontrol",
        job={"JobId": "4242", "Partition": "gpu", "EndTime": "2026-11-22T12:00:00", "Restarts": "1", **properties},
        partition={"PartitionName": "gpu", "GraceTime": "120", "PreemptMode": "REQUEUE"},
        config={"KillWait": "30 sec", "PreemptMode": "REQUEUE", "PreemptType": "preempt/qos", "SLURM_VERSION": "24.11"},
        signal=signal,
    )
    return replace(UBUNTU_24, slurm=replace(facts, **changes))


_DEBIAN_12 = replace(
    kernel(UBUNTU_24, "6.18.44", (2, 36)),
    criu=criu(
        "/usr/sbin/criu",
        (3, 17, 1),
        looks_good=False,
        starts=False,
        said=("vdso: Unexpected rt vDSO area bounds", "Could not initialize kernel features detection."),
        features=frozenset(),
    ),
)
_UBUNTU_22 = kernel(UBUNTU_24, "5.15.0-122-generic", (2, 35))
# criu 4.2.1 without CAP_SYS_ADMIN, as it was seen.
_NO_NAMESPACE = (
    "net: Unable create a network namespace: Operation not permitted",
    "kerndat_has_nftables_concat failed when initializing kerndat.",
    "Could not initialize kernel features detection.",
)
_CONTAINER = on(
    replace(UBUNTU_24, mount=Mount("/", "overlay", ("rw", "relatime")), cuda=_NO_CUDA),
    machine={
        "capabilities": _DOCKER_CAPABILITIES,
        "nftables": False,
        "iptables": False,
        "first_process": FirstProcess("python", 2),
    },
    kernel={
        "options_source": None,
        "options": frozenset(),
        "clone3_set_tid": False,
        "last_pid_writable": False,
        "userfaultfd": Offer.FORBIDDEN,
    },
    confinement={
        "apparmor": "docker-default (enforce)",
        "seccomp": True,
        "first_pid_namespace": False,
        "container": "docker",
    },
    limits={
        "shared_memory_bytes": 64 << 20,
        "shared_memory_free_bytes": 60 << 20,
        "control_group": ControlGroup("/", False, 16 * GIB, 2 * GIB),
    },
    criu={
        "looks_good": False,
        "starts": False,
        "said": _NO_NAMESPACE,
        "features": frozenset(),
    },
)
_ALONE = ComputeMode.EXCLUSIVE_PROCESS

# Name → facts; what is expected of each lies in tests/preflight/machines/NAME.json.
MACHINES: Final[Mapping[str, Facts]] = {
    "debian-12-criu-3.17-linux-6.18": _DEBIAN_12,
    "ubuntu-22.04": replace(_UBUNTU_22, criu=criu("/usr/sbin/criu", (3, 16, 1))),
    "ubuntu-22.04-own-criu": _UBUNTU_22,
    "ubuntu-24.04-without-criu": replace(UBUNTU_24, criu=CriuFacts(None, "There is no criu: neither here nor there.")),
    "ubuntu-24.04": UBUNTU_24,
    "linux-5.4-glibc-2.35": on(kernel(UBUNTU_24, "5.4.0-200-generic", (2, 35)), kernel={"clone3_set_tid": False}),
    "linux-6.14-criu-4.1": replace(
        kernel(UBUNTU_24, "6.14.0-35-generic", (2, 41)), criu=criu("/usr/sbin/criu", (4, 1, 1))
    ),
    "linux-6.14-criu-4.2": kernel(UBUNTU_24, "6.14.0-35-generic", (2, 41)),
    "linux-7.0-criu-4.2": replace(kernel(UBUNTU_24, "7.0.2", (2, 43)), criu=criu("/usr/sbin/criu", (4, 2))),
    "kernel-without-checkpoint": on(UBUNTU_24, kernel={"options": _NEEDED_OPTIONS - {"CHECKPOINT_RESTORE"}}),
    "kernel-without-unix-diag": on(UBUNTU_24, kernel={"options": _NEEDED_OPTIONS - {"UNIX_DIAG"}}),
    "container-without-capabilities": _CONTAINER,
    "ordinary-user": on(
        UBUNTU_24,
        machine={"user_id": 1000, "capabilities": frozenset({"CAP_CHECKPOINT_RESTORE"})},
        place={"writable": False},
        limits={"open_files_max": 1024},
    ),
    "fedora-selinux-confined": on(
        UBUNTU_24,
        confinement={
            "apparmor": None,
            "selinux": "system_u:system_r:container_t:s0:c12,c34",
            "selinux_enforcing": True,
            "first_user_namespace": False,
        },
    ),
    "root-without-net-admin": on(
        UBUNTU_24,
        machine={"capabilities": frozenset(CAPABILITIES) - {"CAP_NET_ADMIN"}, "nftables": False},
        criu={
            "looks_good": False,
            "said": ("Can't turn TCP repair mode ON: Operation not permitted",),
            "features": frozenset(FEATURES) - {"network_lock_nftables"},
        },
    ),
    "root-without-sys-admin": on(
        UBUNTU_24,
        machine={"capabilities": frozenset(CAPABILITIES) - {"CAP_SYS_ADMIN"}},
        criu={"looks_good": False, "starts": False, "said": _NO_NAMESPACE, "features": frozenset()},
    ),
    "root-without-sys-ptrace": on(UBUNTU_24, machine={"capabilities": frozenset(CAPABILITIES) - {"CAP_SYS_PTRACE"}}),
    "memory-short": on(UBUNTU_24, limits={"control_group": ControlGroup("/job", False, 8 * GIB, 8 * GIB - 1000)}),
    "yama-3": on(UBUNTU_24, machine={"ptrace_scope": 3}),
    "driver-535": gpus("535.183.01"),
    "driver-550.54.15": gpus("550.54.15"),
    "driver-570.144": gpus("570.144"),
    "driver-575.57.08": gpus("575.57.08"),
    "driver-580.159.04": gpus("580.159.04"),
    "driver-580-arm": on(gpus("580.159.04"), machine={"architecture": "aarch64"}),
    "driver-590.44.01": gpus("590.44.01"),
    "driver-615.71.09": gpus("615.71.09"),
    "driver-not-loaded": gpus("580.159.04", module=None, library_version=None, nvml=_NO_CUDA.nvml, devices=()),
    "driver-upgraded-not-reloaded": gpus(
        "580.126.09",
        library_version="580.159.04",
        nvml=GpuFacts(None, (), "NVIDIA's management library cannot be used (Driver/library version mismatch)"),
    ),
    "compatibility-library": gpus(
        "570.144", library="/usr/local/cuda/compat/libcuda.so.1", library_version="580.159.04"
    ),
    "container-without-libcuda": gpus("580.159.04", library=None, library_version=None),
    "driver-570.144-some-gpus": gpus("570.144", hardware=8),
    "without-persistence": cards(gpus("580.159.04"), {"persistence": False}, {"persistence": False}),
    "mig-on-all": cards(gpus("580.159.04"), {"mig": True}, {"mig": True}),
    "mig-on-one": cards(gpus("580.159.04"), {}, {"mig": True}),
    "mps": gpus("580.159.04", mps=(812, 830)),
    "compute-modes": cards(gpus("580.159.04"), {"compute_mode": _ALONE}, {"compute_mode": ComputeMode.PROHIBITED}),
    "gpu-memory-above-host-memory": on(gpus("580.159.04"), machine={"memory_available_bytes": 12 * GIB}),
    "nvml-hangs": gpus("580.159.04", nvml=GpuFacts(None, (), "NVIDIA's management library did not answer within 5 s")),
    "bindings-13.3.0": gpus("580.159.04", bindings="13.3.0"),
    "utility-alone": gpus("580.159.04", bindings=None, utility="/usr/local/bin/cuda-checkpoint"),
    "neither-bindings-nor-utility": gpus("580.159.04", bindings=None),
    "store-on-nfs": replace(UBUNTU_24, mount=Mount("/home", "nfs4", ("rw", "hard", "local_lock=none"))),
    "store-on-nfs-nolock": replace(UBUNTU_24, mount=Mount("/home", "nfs", ("rw", "nolock", "local_lock=all"))),
    "store-on-lustre": replace(UBUNTU_24, mount=Mount("/scratch", "lustre", ("rw", "flock", "lazystatfs"))),
    "store-on-lustre-noflock": replace(UBUNTU_24, mount=Mount("/scratch", "lustre", ("rw", "noflock"))),
    "store-on-tmpfs": replace(UBUNTU_24, mount=Mount("/tmp", "tmpfs", ("rw",))),
    "store-hangs": replace(UBUNTU_24, place=Unknown("Nothing was heard about the file system of /home within 5 s.")),
    "store-full": on(UBUNTU_24, place={"free_bytes": 1 << 20}),
    "store-small": on(UBUNTU_24, place={"free_bytes": 20 * GIB}),
    "clock-behind": replace(UBUNTU_24, clock=Clock(NOW, NOW + timedelta(hours=3))),
    "clock-never-set": replace(UBUNTU_24, clock=Clock(datetime(1970, 1, 1, tzinfo=UTC), None)),
    "slurm-job": slurm({"Requeue": "1"}, "B:USR1@300"),
    "slurm-job-badly-submitted": slurm({"Requeue": "0"}, None, partition={"GraceTime": "0", "PreemptMode": "CANCEL"}),
    "slurm-short-signal": slurm({"Requeue": "1"}, "B:USR1", config={"PreemptType": "preempt/none"}),
    "slurm-outside-a-job": slurm({}, None, job_id=None, job={}, partition={}),
    "slurm-silent": slurm({}, None, job={}, silence="scontrol did not end within 1.7 s"),
}
