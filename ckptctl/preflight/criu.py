"""Checks of the criu program: is there one, and is it one for this kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptctl.criu.program import OLDEST, Criu
from ckptctl.host.kernel import Kernel
from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Problem
from ckptctl.preflight.criu_facts import FEATURES, CriuFacts
from ckptctl.preflight.machine_check import MachineCheck, about, about_both, error, ok, skipped, warning
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.unknown import Unknown

_GROUP: Final = "criu"
_CLOCK_PAGES: Final = (6, 13)  # the kernel that moved the vDSO's clock pages (vvar_vclock)
_GUARDS_TOLD: Final = (6, 16)  # PAGEMAP_SCAN tells guard pages
_NEEDED_FOR: Final = {
    "get_rseq_conf": "restartable sequences, which every program with glibc 2.35 or newer has",
    "seccomp_suspend": "programs under a seccomp filter",
    "can_map_vdso": "a quick restore of the vDSO",
    "network_lock_nftables": "holding connections still without iptables",
    "timens": "jobs in a time namespace",
}


def _program(facts: CriuFacts) -> Iterator[Problem]:
    if facts.program is None:
        yield error(facts.missing or "There is no criu.")
        return
    found = facts.program
    data = {"path": found.path, "version": found.version_text, "source": found.source}
    if found.version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        yield error(f"{found.path} ({found.source}) is criu {found.version_text}; ckptctl needs {wanted}.", **data)
    else:
        yield ok(f"criu {found.version_text} is at {found.path} ({found.source}).", **data)


def _against_kernel(program: Criu, machine: Machine) -> Iterator[Problem]:
    version, kernel = program.version, machine.kernel_version
    said = False
    if kernel >= _CLOCK_PAGES and version < (4, 1):
        said = True
        yield error(
            f"criu {program.version_text} does not know the vDSO of Linux {_CLOCK_PAGES[0]}.{_CLOCK_PAGES[1]} and newer"
            f" (vvar_vclock); here is {machine.kernel}. It fails with `vdso: Unexpected rt vDSO area bounds`."
        )
    if kernel >= _CLOCK_PAGES and (4, 1) <= version < (4, 2):
        said = True
        yield warning(
            f"criu {program.version_text} does not know guard pages (MADV_GUARD), which glibc 2.42 and newer put below"
            f" the stacks of threads on Linux {_CLOCK_PAGES[0]}.{_CLOCK_PAGES[1]} and newer.",
            "Install criu 4.2 or newer: ckptctl check --fix.",
        )
    if _CLOCK_PAGES <= kernel < _GUARDS_TOLD and version >= (4, 2):
        said = True
        yield warning(
            f"Linux {machine.kernel} has guard pages but does not tell where they are (PAGEMAP_SCAN): jobs that use"
            " them, as with glibc 2.42 and newer, cannot be dumped.",
            "Use Linux 6.16 or newer for those.",
        )
    if kernel >= (7, 0) and version < (4, 2, 1):
        said = True
        yield warning(
            f"criu {program.version_text} does not know the restartable sequences (rseq) of Linux 7.0.",
            "Install criu 4.2.1 or newer: ckptctl check --fix.",
        )
    if not said:
        yield ok(f"criu {program.version_text} is new enough for Linux {machine.kernel}.")


def _rseq(machine: Machine, kernel: Kernel) -> Iterator[Problem]:
    version = ".".join(map(str, kernel.glibc))
    if machine.kernel_version < (5, 13) and kernel.glibc >= (2, 35):
        yield warning(
            f"Programs of glibc {version} use restartable sequences (rseq), which Linux {machine.kernel} does not tell:"
            " they cannot be dumped.",
        )
    else:
        yield ok("Restartable sequences (rseq) of programs can be dumped.", glibc=version or None)


def _own_check(facts: CriuFacts) -> Iterator[Problem]:
    said = "; ".join(facts.said).rstrip(".") or "it says nothing"
    if facts.program is None:
        yield skipped("There is no criu to ask.")
    elif facts.looks_good is None:
        yield warning(f"`criu check` gave no answer: {said}.")
    elif facts.looks_good:
        yield ok("`criu check` says that all looks good.")
    elif facts.starts:
        yield warning(f"`criu check` misses something that some jobs need: {said}.")
    else:
        yield error(f"criu does not work here: {said}.")


def _features(facts: CriuFacts) -> Iterator[Problem]:
    if facts.program is None or facts.looks_good is None or not facts.starts:
        yield skipped("There is no criu that works to ask.")
        return
    missing = [name for name in FEATURES if name not in facts.features]
    for name in missing:
        yield warning(f"criu finds no {name} here, which is for {_NEEDED_FOR[name]}.", feature=name)
    if not missing:
        yield ok("criu finds every feature that ckptctl uses.", features=" ".join(sorted(facts.features)))


def _plugins(facts: CriuFacts) -> Iterator[Problem]:
    if facts.program is None:
        yield skipped("There is no criu to ask.")
        return
    has = f"holds {', '.join(facts.plugins)}" if facts.plugins else "is empty"
    yield ok(
        f"criu's plugins stay off: ckptctl saves GPU memory itself ({facts.plugin_folder or 'their folder'} {has}).",
        folder=facts.plugin_folder,
        plugins=" ".join(facts.plugins) or None,
    )


def _images(facts: CriuFacts) -> Iterator[Problem]:
    if facts.program is None or facts.looks_good is None:
        yield skipped("There is no criu to ask.")
        return
    offers = (("compression", facts.compression), ("direct I/O", facts.direct_io))
    has = [name for name, offered in offers if offered]
    said = " and ".join(has) if has else "neither compression nor direct I/O"
    yield ok(f"For images criu offers {said}.", compression=facts.compression, direct_io=facts.direct_io)


def _found(facts: Facts) -> Criu | Unknown:
    if isinstance(facts.criu, Unknown):
        return facts.criu
    return facts.criu.program or Unknown("There is no criu to judge.")


CHECKS: Final = (
    MachineCheck(
        "criu",
        _GROUP,
        "criu dumps and restores the processes; older ones lose the job when something fails.",
        "Run `ckptctl check --fix`, or name a newer criu in $CKPTCTL_CRIU.",
        about(lambda facts: facts.criu, _program),
    ),
    MachineCheck(
        "criu-kernel",
        _GROUP,
        "criu must know what the kernel maps into every process: older ones do not start on newer kernels.",
        "Install criu 4.1 or newer: ckptctl check --fix.",
        about_both(_found, lambda facts: facts.machine, _against_kernel),
    ),
    MachineCheck(
        "restartable-sequences",
        _GROUP,
        "A process that is dumped within a restartable sequence must be put back to its beginning, or it crashes.",
        "Use Linux 5.13 or newer, or start jobs with GLIBC_TUNABLES=glibc.pthread.rseq=0.",
        about_both(lambda facts: facts.machine, lambda facts: facts.kernel, _rseq),
    ),
    MachineCheck(
        "criu-check",
        _GROUP,
        "criu tries itself whether the kernel and this user's rights let it work.",
        "See what it says: criu check -v4, as the user that runs ckptctl.",
        about(lambda facts: facts.criu, _own_check),
    ),
    MachineCheck(
        "criu-features",
        _GROUP,
        "Some jobs need more of the kernel than the most.",
        "Use a kernel as new as that of the distribution's current release.",
        about(lambda facts: facts.criu, _features),
    ),
    MachineCheck(
        "criu-plugins",
        _GROUP,
        "criu's own CUDA plugin would act on the GPU a second time.",
        "Nothing has to be done.",
        about(lambda facts: facts.criu, _plugins),
    ),
    MachineCheck(
        "criu-images",
        _GROUP,
        "Newer versions compress images and write past the page cache.",
        "Nothing has to be done.",
        about(lambda facts: facts.criu, _images),
    ),
)
