"""The compatibility gate: would this snapshot restore here and now? Each refusal names the property and both values."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.host.elf import read_build_id
from ckptctl.host.machine import Machine, version_of
from ckptctl.preflight.finding import Finding, Level
from ckptctl.process.ports import listening_ports
from ckptctl.store.manifest import Manifest, ProcessState, Transport

_GROUP: Final = "snapshot"
# Instructions that a program decides to use when it starts, and would use again where they are missing (SIGILL).
_INSTRUCTION_SETS: Final = (
    "sse",
    "ssse",
    "avx",
    "amx",
    "fma",
    "bmi",
    "f16c",
    "sha",
    "aes",
    "vaes",
    "pclmul",
    "vpclmul",
)
_NAMED_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a restore would meet. `criu_version` None where no criu was found; `pids_matter` without a new namespace."""

    manifest: Manifest
    machine: Machine
    criu_version: tuple[int, ...]


def findings(circumstances: Circumstances) -> tuple[Finding, ...]:
    """What stands in the way of the restore or may spoil it; pids and files that grew are judged elsewhere."""
    return tuple(finding for check in _CHECKS for finding in check(circumstances))


def _criu(given: Circumstances) -> Iterator[Finding]:
    wanted = version_of(given.manifest.criu.version)
    if given.criu_version[:2] < wanted[:2]:
        yield _error(
            "criu-version",
            f"The snapshot was taken with criu {given.manifest.criu.version}; here is {_dotted(given.criu_version)}.",
            "Install that version or a newer one: scripts/install-criu.",
        )


def _machine(given: Circumstances) -> Iterator[Finding]:
    then, now = given.manifest.host, given.machine
    for name, before, here in (
        ("architecture", then.arch, now.architecture),
        ("page size", str(then.page_size_bytes), str(now.page_size_bytes)),
    ):
        if before != here:
            yield _error(
                name.replace(" ", "-"),
                f"The {name} was {before} at the dump; here it is {here}.",
                "Restore on a machine like the one of the dump.",
            )
    if version_of(then.kernel) > now.kernel_version and version_of(then.kernel)[:2] != now.kernel_version[:2]:
        yield _warning(
            "kernel",
            f"The kernel was {then.kernel} at the dump; here is the older {now.kernel}.",
            "If the restore fails for want of a feature, use a kernel as new as that of the dump.",
        )


def _cpu(given: Circumstances) -> Iterator[Finding]:
    missing = sorted(
        flag
        for flag in set(given.manifest.host.cpu_flags) - set(given.machine.cpu.flags)
        if flag.startswith(_INSTRUCTION_SETS)
    )
    if missing:
        yield _error(
            "cpu-features",
            f"The processor of the dump ({given.manifest.host.cpu_model}) had {', '.join(missing)}; "
            f"this one ({given.machine.cpu.model}) has not.",
            "Restore on a processor with the same instruction sets: the job would die of an illegal instruction.",
        )


def _user(given: Circumstances) -> Iterator[Finding]:
    others = sorted({process.uid for process in given.manifest.tree.processes} - {given.machine.user_id})
    if given.machine.user_id != 0 and others:
        yield _error(
            "user",
            f"Processes of the snapshot belong to the users {', '.join(map(str, others))}; "
            f"you are {given.machine.user_id}.",
            "Run the restore as root.",
        )


def _folders(given: Circumstances) -> Iterator[Finding]:
    wanted = {process.cwd: process.pid for process in given.manifest.tree.processes if process.cwd}
    for folder, pid in wanted.items():
        if not Path(folder).is_dir():
            yield _error(
                "working-folder",
                f"The working folder {folder} of process {pid} is not there.",
                f"Create it or mount what holds it: mkdir -p {folder}",
            )


def _programs(given: Circumstances) -> Iterator[Finding]:
    changed = []
    put_in_place = {file.path for file in given.manifest.kept_files}
    for file in given.manifest.mapped_files:
        if file.path in put_in_place:
            continue
        problem = _difference(Path(file.path), file.size_bytes, file.build_id)
        if problem:
            changed.append(f"{file.path} {problem}")
    if changed:
        more = f", and {len(changed) - _NAMED_MOST} more" if len(changed) > _NAMED_MOST else ""
        yield _error(
            "programs",
            f"Programs, libraries or data that the job has mapped are not as they were: "
            f"{'; '.join(changed[:_NAMED_MOST])}{more}.",
            "Put back the versions of the dump (an upgrade since? another environment?).",
        )


def _ports(given: Circumstances) -> Iterator[Finding]:
    wanted = {(port.transport, port.port): port for port in given.manifest.ports if port.transport is Transport.TCP}
    if not wanted:
        return
    taken = listening_ports()
    for (_, number), port in sorted(wanted.items(), key=lambda item: item[0][1]):
        if number in taken:
            yield _error(
                "ports",
                f"Port {number}, on which process {port.pid} of the job listens, is in use.",
                f"See who listens there and end it: ss -ltnp 'sport = :{number}'",
            )


def _difference(path: Path, size_bytes: int, build_id: str | None) -> str | None:
    """How a mapped file differs from the one of the dump, as CRIU would see it (criu/files-reg.c, validate_file)."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            return None
        found = read_build_id(path) if build_id else None
    except OSError as error:
        return f"cannot be read ({os.strerror(error.errno or 0)})"
    if build_id and found != build_id:
        return f"has the build id {found or 'none'} instead of {build_id}"
    if info.st_size != size_bytes:
        return f"has {info.st_size} bytes instead of {size_bytes}"
    return None


def living(manifest: Manifest) -> Iterable[int]:
    """The pids that must be alive after the restore."""
    return (process.pid for process in manifest.tree.processes if process.state is not ProcessState.ZOMBIE)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _error(check: str, summary: str, remedy: str) -> Finding:
    return Finding(check, _GROUP, Level.ERROR, summary, remedy)


def _warning(check: str, summary: str, remedy: str) -> Finding:
    return Finding(check, _GROUP, Level.WARNING, summary, remedy)


_CHECKS: Final[tuple[Callable[[Circumstances], Iterator[Finding]], ...]] = (
    _criu, _machine, _cpu, _user, _folders, _programs, _ports,
)  # fmt: skip
