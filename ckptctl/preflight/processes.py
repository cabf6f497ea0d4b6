"""Checks of the processes of a tree themselves: rights over them, their state, their namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Check, Problem
from ckptctl.preflight.finding import Level
from ckptctl.preflight.tracing import tracing_trouble
from ckptctl.process.member import Process
from ckptctl.process.namespaces import Namespace
from ckptctl.process.tree import Tree

_GROUP: Final = "processes"
_RESOURCE: Final = "CAP_SYS_RESOURCE"
# CRIU restores a network namespace within the tree where the root has one of its own, others nowhere.
_NESTED: Final = frozenset({"net"})


def _capabilities(_tree: Tree, machine: Machine) -> Iterator[Problem]:
    if not machine.capabilities & {"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}:
        yield Problem(Level.ERROR, "Neither this user nor criu has CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.")
    trouble = tracing_trouble(machine)
    if trouble is not None:
        yield trouble


def _hidden(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for process in tree.processes:
        if process.hidden:
            yield Problem(Level.ERROR, f"This user may not look at process {process.label}.", _pid(process))


def _limits(tree: Tree, machine: Machine) -> Iterator[Problem]:
    """prlimit(2) on a process of another user asks for CAP_SYS_RESOURCE, of which containers deprive even root."""
    if _RESOURCE in machine.capabilities:
        return
    for process in tree.living:
        if any(user != machine.user_id for user in process.identity.user_ids[:3]):
            yield Problem(
                Level.ERROR,
                f"Process {process.label} belongs to user {process.identity.user_ids[0]}, whose limits may not be read"
                f" without {_RESOURCE}.",
                _pid(process),
            )


def _traced(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for process in tree.processes:
        if process.tracer_pid:
            tracer = tree.process(process.tracer_pid)
            by = f"process {tracer.label if tracer else process.tracer_pid}"
            yield Problem(
                Level.ERROR,
                f"Process {process.label} is traced by {by}.",
                (*_pid(process), ("tracer", str(process.tracer_pid))),
            )


def _dead_leaders(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    for process in tree.processes:
        if process.is_zombie and len(process.threads) > 1:
            yield Problem(
                Level.ERROR,
                f"The first thread of process {process.label} has ended while {len(process.threads) - 1} others go on.",
                _pid(process),
            )


def _user_namespace(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    if "user" in _kinds(tree.foreign_namespaces(tree.root)):
        yield Problem(Level.ERROR, f"Process {tree.root.label} lives in a user namespace of its own.", _pid(tree.root))


def _mount_namespace(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    if "mnt" in _kinds(tree.foreign_namespaces(tree.root)):
        yield Problem(
            Level.WARNING,
            f"Process {tree.root.label} lives in a mount namespace of its own: criu is run in there, and must be there"
            " under the same path as here, as must the folder of the snapshot.",
            _pid(tree.root),
        )


def _nested_namespaces(tree: Tree, _machine: Machine) -> Iterator[Problem]:
    root = tree.root
    restorable = _NESTED & _kinds(tree.foreign_namespaces(root))
    for process in tree.living[1:]:
        other = sorted(_kinds(set(process.namespaces) - set(root.namespaces)) - restorable)
        if other:
            yield Problem(
                Level.ERROR,
                f"Process {process.label} lives in other namespaces ({', '.join(other)}) than process {root.label},"
                " the root of its tree.",
                (*_pid(process), ("namespaces", ", ".join(other))),
            )


def _kinds(namespaces: tuple[Namespace, ...] | set[Namespace]) -> set[str]:
    return {item.kind for item in namespaces}


def _pid(process: Process) -> tuple[tuple[str, str], ...]:
    return (("pid", str(process.pid)),)


CHECKS: Final = (
    Check(
        "capabilities",
        _GROUP,
        "CRIU must trace the job and rebuild it under the same process numbers.",
        "This user may dump and restore processes.",
        "Run ckptctl as root. Or run it as the job's user with these capabilities (setpriv --ambient-caps,"
        " AmbientCapabilities= of a service), or give them to the criu of the distribution (setcap"
        " cap_checkpoint_restore,cap_sys_ptrace,cap_setpcap+eip); dump and restore with --criu-option=--unprivileged"
        " then.",
        _capabilities,
    ),
    Check(
        "visible",
        _GROUP,
        "What may not be looked at cannot be judged, nor saved.",
        "All processes of the tree can be looked at.",
        "Run ckptctl as the user of the job or as root.",
        _hidden,
    ),
    Check(
        "limits",
        _GROUP,
        "CRIU reads the resource limits of each process: without the right to do so the dump would fail.",
        "The limits of all processes can be read.",
        "Run ckptctl as the user of the job, or with CAP_SYS_RESOURCE.",
        _limits,
    ),
    Check(
        "traced",
        _GROUP,
        "A process has one tracer at most, and CRIU must be it: the dump would fail.",
        "No process is traced.",
        "End the debugger or strace first.",
        _traced,
    ),
    Check(
        "first-thread",
        _GROUP,
        "CRIU cannot save a process whose first thread has ended: the dump would fail.",
        "The first thread of every process lives.",
        "Change the program so that its main thread waits for the others.",
        _dead_leaders,
    ),
    Check(
        "user-namespace",
        _GROUP,
        "CRIU cannot restore a job into a user namespace from outside it.",
        "The job shares its user namespace with ckptctl.",
        "Start the job without a user namespace of its own (no rootless container, no unshare --user).",
        _user_namespace,
    ),
    Check(
        "mount-namespace",
        _GROUP,
        "A job with mounts of its own sees other files than ckptctl does.",
        "The job sees the same mounts as ckptctl.",
        "Run ckptctl inside the container or service of the job, or start the job without mounts of its own.",
        _mount_namespace,
    ),
    Check(
        "nested-namespaces",
        _GROUP,
        "CRIU saves namespaces for the whole tree: dump or restore would fail where a part of it has its own.",
        "All processes of the tree live in the same namespaces.",
        "Dump the inner part by itself, or start it without namespaces of its own.",
        _nested_namespaces,
    ),
)
