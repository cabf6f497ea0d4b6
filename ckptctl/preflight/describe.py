"""Every check there is, in words: for the page of the manual that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ckptctl.preflight import ready, tree


@dataclass(frozen=True, slots=True)
class Described:
    """A check: `asked` says by which command it is made, `remedy` what it usually advises."""

    group: str
    name: str
    protects: str
    remedy: str
    asked: str


_MACHINE: Final = "check"
_PROCESS: Final = "check --pid, dump"
_SNAPSHOT: Final = "check --snapshot, restore"
_SAME: Final = "Restore on a machine like the one of the dump."

# Group, name, what it protects, remedy: the gate of a restore has both values in each of its sentences.
_GATE: Final = (
    ("snapshot", "criu-version", "An older criu does not read the images of a newer one.", "Run scripts/install-criu."),
    ("snapshot", "architecture", "Registers and code are those of one architecture.", _SAME),
    ("snapshot", "page-size", "Memory was saved in pages of one size.", _SAME),
    ("snapshot", "kernel", "An older kernel may lack what the job uses.", "Use a kernel as new as that of the dump."),
    (
        "snapshot",
        "cpu-features",
        "A program that found an instruction set when it started uses it on, and dies where it is missing.",
        "Restore on a processor with the same instruction sets.",
    ),
    ("snapshot", "user", "Only root can restore processes of others.", "Run the restore as root."),
    (
        "snapshot",
        "working-folder",
        "Every process comes back in its working folder.",
        "Create it, or mount what holds it.",
    ),
    (
        "snapshot",
        "programs",
        "Programs and libraries in memory are read from their files again, which must be the same.",
        "Put back the versions of the dump.",
    ),
    ("snapshot", "ports", "A port on which the job listens must be free.", "End who listens there: ss -ltnp"),
    (
        "gpu",
        "gpu-driver",
        "GPU memory is read back by a driver that is at least as new.",
        "Install that driver or a newer one.",
    ),
    (
        "gpu",
        "gpu-map",
        "Every GPU of the dump needs one in its place.",
        "Restore onto the GPUs of the dump, or name others with --gpu-map.",
    ),
    (
        "gpu",
        "gpu-memory",
        "A process that runs out of GPU memory while it is restored is lost.",
        "End what uses the GPU, or choose another one with --gpu-map.",
    ),
)  # fmt: skip


def describe_checks() -> tuple[Described, ...]:
    """All of them: those of a machine, of a process tree, and of a snapshot before its restore."""
    return (
        *(Described(one.group, one.name, one.protects, one.remedy, _MACHINE) for one in ready.CHECKS),
        *(Described(one.group, one.name, one.protects, one.remedy, _PROCESS) for one in tree.CHECKS),
        *(Described(*row, _SNAPSHOT) for row in _GATE),
    )
