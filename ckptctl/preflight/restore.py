"""The compatibility gate: would this snapshot restore here and now? Each refusal names the property and both values."""

from __future__ import annotations

import os
import shlex
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.host.elf import read_build_id
from ckptctl.host.machine import Machine, all_capabilities, capability_names, version_of
from ckptctl.preflight.check import Problem
from ckptctl.preflight.described import Question
from ckptctl.preflight.finding import Finding, Level
from ckptctl.process.ports import listening_ports
from ckptctl.store.manifest import Manifest, OpenFile, ProcessRecord, ProcessState, Transport

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
_SETPCAP: Final = "CAP_SETPCAP"
_ACCESS: Final = {os.O_RDONLY: os.R_OK, os.O_WRONLY: os.W_OK, os.O_RDWR: os.R_OK | os.W_OK, os.O_ACCMODE: os.F_OK}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a restore would meet; `criu_version` is None where no criu was found, which is said elsewhere."""

    manifest: Manifest
    machine: Machine
    criu_version: tuple[int, ...] | None


def findings(circumstances: Circumstances) -> tuple[Finding, ...]:
    """What stands in the way of the restore or may spoil it; pids and files that grew are judged elsewhere."""
    return tuple(finding for check in CHECKS for finding in check.findings(circumstances))


def _criu(given: Circumstances) -> Iterator[Problem]:
    wanted = version_of(given.manifest.criu.version)
    if given.criu_version is not None and given.criu_version[:2] < wanted[:2]:
        yield _error(
            f"The snapshot was taken with criu {given.manifest.criu.version}; here is {_dotted(given.criu_version)}.",
        )


def _architecture(given: Circumstances) -> Iterator[Problem]:
    yield from _compared("architecture", given.manifest.host.arch, given.machine.architecture)


def _page_size(given: Circumstances) -> Iterator[Problem]:
    then, now = given.manifest.host.page_size_bytes, given.machine.page_size_bytes
    yield from _compared("page size", str(then), str(now))


def _compared(what: str, then: str, now: str) -> Iterator[Problem]:
    if then != now:
        yield _error(f"The {what} was {then} at the dump; here it is {now}.")


def _kernel(given: Circumstances) -> Iterator[Problem]:
    then, now = given.manifest.host.kernel, given.machine
    if version_of(then) > now.kernel_version and version_of(then)[:2] != now.kernel_version[:2]:
        yield Problem(Level.WARNING, f"The kernel was {then} at the dump; here is the older {now.kernel}.")


def _cpu(given: Circumstances) -> Iterator[Problem]:
    missing = sorted(
        flag
        for flag in set(given.manifest.host.cpu_flags) - set(given.machine.cpu.flags)
        if flag.startswith(_INSTRUCTION_SETS)
    )
    if missing:
        yield _error(
            f"The processor of the dump ({given.manifest.host.cpu_model}) had {', '.join(missing)}; "
            f"this one ({given.machine.cpu.model}) has not."
        )


def _user(given: Circumstances) -> Iterator[Problem]:
    others = sorted({process.uid for process in given.manifest.tree.processes} - {given.machine.user_id})
    if given.machine.user_id != 0 and others:
        yield _error(
            f"Processes of the snapshot belong to the users {', '.join(map(str, others))}; "
            f"you are {given.machine.user_id}."
        )


def _capabilities(given: Circumstances) -> Iterator[Problem]:
    """Measured with criu 4.2.1: it sets each process's permitted capabilities, and drops what was outside its bound."""
    held, known = given.machine.capabilities, all_capabilities()
    living = [one for one in given.manifest.tree.processes if one.state is not ProcessState.ZOMBIE]
    for names, users in _by_lacking(living, held).items():
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        yield _error(f"Process {users[0]}{more} of the job had {', '.join(names)}; this restore has not.")
    bound = [one.pid for one in living if known - capability_names(_mask(one.bounding_capabilities))]
    if bound and _SETPCAP not in held and given.machine.user_id != 0:
        yield _error(
            f"Process {bound[0]} of the job can never get some of the capabilities that this kernel knows; to restore"
            f" that needs {_SETPCAP}.",
            f"Run the restore as root, or with {_SETPCAP}.",
        )


def _by_lacking(processes: Iterable[ProcessRecord], held: frozenset[str]) -> dict[tuple[str, ...], list[int]]:
    """The pids of the processes that had more than is held, by what that is."""
    found: dict[tuple[str, ...], list[int]] = {}
    for one in processes:
        lacking = sorted(capability_names(one.permitted_capabilities or 0) - held)
        if lacking:
            found.setdefault(tuple(lacking), []).append(one.pid)
    return found


def _mask(recorded: int | None) -> int:
    """Snapshots of before do not tell: then nothing is amiss."""
    return -1 if recorded is None else recorded


def _folders(given: Circumstances) -> Iterator[Problem]:
    wanted = {process.cwd: process.pid for process in given.manifest.tree.processes if process.cwd}
    for folder, pid in wanted.items():
        if not Path(folder).is_dir():
            yield _error(
                f"The working folder {folder} of process {pid} is not there.",
                f"Create it or mount what holds it: mkdir -p {folder}",
            )


def _files(given: Circumstances) -> Iterator[Problem]:
    """Those that are not there are judged with the plan for files. criu may have more rights than this process."""
    if given.machine.user_id != 0 and "CAP_DAC_OVERRIDE" in given.machine.capabilities:
        return
    wanted: defaultdict[str, int] = defaultdict(int)
    for file in _named(given.manifest):
        if not file.flags & os.O_PATH:
            wanted[file.path] |= _ACCESS[file.flags & os.O_ACCMODE]
    closed = [path for path, mode in wanted.items() if _may(path, os.F_OK) and not _may(path, mode)]
    if closed:
        more = f", and {len(closed) - _NAMED_MOST} more" if len(closed) > _NAMED_MOST else ""
        yield _error(f"You may not open files as the job had them open: {', '.join(closed[:_NAMED_MOST])}{more}.")


def _modes(given: Circumstances) -> Iterator[Problem]:
    """criu compares them all, of files that are mapped too (criu/files-reg.c, open_path)."""
    then = {file.path: file.mode for file in given.manifest.mapped_files}
    then |= {file.path: file.mode for file in _named(given.manifest)}
    for path, mode in sorted(then.items()):
        now = _mode_now(path)
        if mode is None or now is None or now == mode:
            continue
        if stat.S_IFMT(now) != stat.S_IFMT(mode):
            yield _error(f"{path} is a file of another kind than at the dump.", "Put back what was there.")
        else:
            permissions = f"{stat.S_IMODE(mode):04o}"
            yield _error(
                f"The permissions of {path} were {permissions} at the dump; now they are {stat.S_IMODE(now):04o}.",
                f"Put them back: chmod {permissions} {shlex.quote(path)}",
            )


def _named(manifest: Manifest) -> list[OpenFile]:
    """The open files that are opened again by their name; those in memory are put there with everything."""
    put_in_place = {file.path for file in manifest.kept_files}
    return [file for file in manifest.open_files if not file.deleted and file.path not in put_in_place]


def _mode_now(path: str) -> int | None:
    """None where it is not there or cannot be seen, which is said elsewhere."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return None


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _programs(given: Circumstances) -> Iterator[Problem]:
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
            f"Programs, libraries or data that the job has mapped are not as they were: "
            f"{'; '.join(changed[:_NAMED_MOST])}{more}."
        )


def _ports(given: Circumstances) -> Iterator[Problem]:
    wanted = {(port.transport, port.port): port for port in given.manifest.ports if port.transport is Transport.TCP}
    if not wanted:
        return
    taken = listening_ports()
    for (_, number), port in sorted(wanted.items(), key=lambda item: item[0][1]):
        if number in taken:
            yield _error(
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


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _error(summary: str, remedy: str | None = None) -> Problem:
    return Problem(Level.ERROR, summary, remedy=remedy)


CHECKS: Final[tuple[Question[Circumstances], ...]] = (
    Question(
        "criu-version",
        _GROUP,
        "Images of a newer criu may hold what an older one does not know.",
        "Install the version of the dump or a newer one: ckptctl check --fix.",
        "criu is as new as at the dump.",
        _criu,
    ),
    Question(
        "architecture",
        _GROUP,
        "The job's program is of one processor architecture.",
        "Restore on a machine like the one of the dump.",
        "The architecture is that of the dump.",
        _architecture,
    ),
    Question(
        "page-size",
        _GROUP,
        "Memory is saved in pages of the machine's size.",
        "Restore on a machine like the one of the dump.",
        "Pages of memory are as large as at the dump.",
        _page_size,
    ),
    Question(
        "kernel-version",
        _GROUP,
        "An older kernel may lack what the job uses.",
        "If the restore fails for want of a feature, use a kernel as new as that of the dump.",
        "The kernel is as new as at the dump.",
        _kernel,
    ),
    Question(
        "cpu-features",
        _GROUP,
        "A program that found instructions at its start would die where they are missing (illegal instruction).",
        "Restore on a processor with the same instruction sets.",
        "The processor has the instructions of that of the dump.",
        _cpu,
    ),
    Question(
        "user",
        _GROUP,
        "Only root may create processes of other users.",
        "Run the restore as root.",
        "The processes are yours, or you are root.",
        _user,
    ),
    Question(
        "job-capabilities",
        _GROUP,
        "Every process gets back the capabilities that it had, which only somebody with them all can give.",
        "Run the restore with these capabilities: as root, in a container with --cap-add for each.",
        "The restore has every capability that the job had.",
        _capabilities,
    ),
    Question(
        "working-folder",
        _GROUP,
        "Every process gets back the working folder that it had.",
        "Create it, or mount what holds it.",
        "The working folders are there.",
        _folders,
    ),
    Question(
        "file-access",
        _GROUP,
        "Every file is opened again as the job had it open: for reading, for writing, or both.",
        "Run the restore as a user who may, or let this one: chown, or a file system that may be written to.",
        "The job's files may be opened.",
        _files,
    ),
    Question(
        "file-mode",
        _GROUP,
        "criu refuses a file whose permissions have changed.",
        "Put the permissions of the dump back with chmod.",
        "The permissions of the job's files are those of the dump.",
        _modes,
    ),
    Question(
        "programs",
        _GROUP,
        "Code that is mapped is not in the snapshot: from another version, the job would crash.",
        "Put back the versions of the dump (an upgrade since? another environment?).",
        "Programs, libraries and data are as they were.",
        _programs,
    ),
    Question(
        "ports",
        _GROUP,
        "A port on which the job listens must be free again.",
        "See who listens there and end it: ss -ltnp",
        "The ports on which the job listens are free.",
        _ports,
    ),
)
