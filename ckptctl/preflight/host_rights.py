"""Checks of what the kernel can do and what this user may make it do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptctl.host.confinement import Confinement
from ckptctl.host.kernel import Kernel, Offer
from ckptctl.host.machine import Machine
from ckptctl.preflight.check import Problem
from ckptctl.preflight.criu_facts import CriuFacts
from ckptctl.preflight.machine_check import MachineCheck, about, about_both, error, ok, skipped, warning
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.tracing import tracing_trouble
from ckptctl.preflight.unknown import Unknown

_GROUP: Final = "host"
_ADMIN: Final = "CAP_SYS_ADMIN"
_CHECKPOINT: Final = "CAP_CHECKPOINT_RESTORE"
_TRACE: Final = "CAP_SYS_PTRACE"
# What the restore of any process fails without, as root; measured with criu 4.2.1.
_RESTORE: Final = (_ADMIN, "CAP_NET_ADMIN", "CAP_SETPCAP", "CAP_SYS_CHROOT")
# Sources: capabilities(7) and what criu calls.
_USES: Final = {
    _ADMIN: "to restore namespaces and mounts, to lift seccomp filters for a dump, and to choose pids before Linux 5.9",
    _TRACE: "to look into processes that are not one's own children, and to save GPU memory",
    "CAP_SYS_RESOURCE": "to dump processes of other users (their limits) and to open more files than the limit",
    "CAP_NET_ADMIN": "to keep TCP connections, and for every restore",
    "CAP_DAC_OVERRIDE": "to open files of other users",
    "CAP_DAC_READ_SEARCH": "to find files by their handle (inotify)",
    "CAP_FOWNER": "to link files of other users that have lost their name",
    "CAP_CHOWN": "to give deleted files back to their owner",
    "CAP_KILL": "to stop and to end processes of other users",
    "CAP_SETUID": "to restore processes of other users",
    "CAP_SETGID": "to restore the groups of processes",
    "CAP_SETPCAP": "to restore the capabilities of every process",
    "CAP_SYS_CHROOT": "to restore the root folder of every process",
    "CAP_SYS_NICE": "to restore raised priorities",
    "CAP_MKNOD": "to restore deleted device files",
    "CAP_IPC_LOCK": "to restore locked memory beyond the limit",
}
_OPTIONS: Final = {
    "NAMESPACES": "namespaces",
    "UNIX_DIAG": "unix sockets",
    "INET_DIAG": "TCP connections",
    "INET_UDP_DIAG": "UDP sockets",
    "NETLINK_DIAG": "netlink sockets",
    "PACKET_DIAG": "packet sockets",
    "EPOLL": "epoll",
    "EVENTFD": "eventfd",
    "FHANDLE": "inotify",
    "MEMFD_CREATE": "memory files (memfd)",
}


def _kernel(machine: Machine, kernel: Kernel) -> Iterator[Problem]:
    data = {"release": machine.kernel, "architecture": machine.architecture, "options_from": kernel.options_source}
    lacks = bool(kernel.options) and "CHECKPOINT_RESTORE" not in kernel.options
    if lacks or not kernel.checkpoint_restore:
        yield error(f"The kernel {machine.kernel} was built without CONFIG_CHECKPOINT_RESTORE.", **data)
        return
    missing = [option for option in _OPTIONS if kernel.options and option not in kernel.options]
    for option in missing:
        yield warning(
            f"The kernel {machine.kernel} was built without CONFIG_{option}: jobs with {_OPTIONS[option]} cannot be"
            " dumped.",
            option=f"CONFIG_{option}",
        )
    if not missing:
        unseen = "" if kernel.options else "; its other options cannot be seen"
        yield ok(f"The kernel {machine.kernel} ({machine.architecture}) can checkpoint and restore{unseen}.", **data)


def _privileges(facts: Facts) -> Iterator[Problem]:
    """An ordinary user may have a criu with capabilities of its own (setcap(8)): then its own check succeeds."""
    machine, criu = facts.machine, facts.criu
    if isinstance(machine, Unknown):
        yield skipped(machine.reason)
        return
    held, uid = machine.capabilities, machine.user_id
    missing = [name for name in _USES if name not in held]
    data = {"uid": uid, "missing": " ".join(missing) or None}
    needs = "; ".join(f"{name} ({_USES[name]})" for name in missing)
    if not held & {_ADMIN, _CHECKPOINT} and not (isinstance(criu, CriuFacts) and criu.looks_good):
        yield error(f"Neither this user (uid {uid}) nor criu has {_ADMIN} or {_CHECKPOINT}. Missing: {needs}.", **data)
    elif uid == 0 and _ADMIN not in held:
        yield warning(
            f"criu works for root without {_ADMIN} only with the option --unprivileged. Missing: {needs}.",
            f"Give the container --cap-add {_ADMIN.removeprefix('CAP_')}, or dump and restore with"
            " --criu-option=--unprivileged.",
            **data,
        )
    elif missing:
        yield warning(f"For some jobs this user lacks {needs}.", **data)
    else:
        yield ok("Every capability that a dump or a restore may need is here.", **data)


def _restore_privileges(machine: Machine) -> Iterator[Problem]:
    missing = [name for name in _RESTORE if name not in machine.capabilities]
    if machine.user_id != 0:
        yield skipped("This is judged for root alone.")
    elif missing:
        yield error(f"Nothing can be restored by root without {', '.join(missing)}.", missing=" ".join(missing))
    else:
        yield ok("Every capability that each restore needs is here.")


def _tracing(machine: Machine) -> Iterator[Problem]:
    scope, trouble = machine.ptrace_scope, tracing_trouble(machine)
    if trouble is not None:
        yield trouble
    elif scope is None:
        yield ok("The kernel does not restrict who may trace whom (no Yama).")
    else:
        yield ok(f"Processes may be traced (kernel.yama.ptrace_scope is {scope}).", scope=scope)


def _user(machine: Machine, confinement: Confinement) -> Iterator[Problem]:
    data = {"uid": machine.user_id, "first_user_namespace": confinement.first_user_namespace}
    if not confinement.first_user_namespace:
        yield warning(
            f"This is user {machine.user_id} of a user namespace: jobs with seccomp filters, with namespaces or of"
            " users from outside cannot be dumped.",
            **data,
        )
    elif machine.user_id != 0:
        yield warning(
            f"ckptctl runs as user {machine.user_id}: jobs of others are out of reach, and criu wants to be told.",
            "Run ckptctl as root; or dump and restore with --criu-option=--unprivileged, where this user or criu has"
            " the capabilities for it (setpriv --ambient-caps, AmbientCapabilities= of a service, setcap for a criu"
            " that is no script: cap_checkpoint_restore,cap_sys_ptrace,cap_setpcap).",
            **data,
        )
    else:
        yield ok("ckptctl runs as root.", **data)


def _security_modules(confinement: Confinement) -> Iterator[Problem]:
    data = {
        "modules": ",".join(confinement.security_modules) or None,
        "apparmor": confinement.apparmor,
        "selinux": confinement.selinux,
        "selinux_enforcing": confinement.selinux_enforcing,
        "seccomp": confinement.seccomp,
    }
    confined = False
    if confinement.apparmor and not confinement.apparmor.startswith("unconfined"):
        confined = True
        yield warning(
            f"AppArmor confines this process ({confinement.apparmor}): criu may not reach into the job.",
            "Start the container with --security-opt apparmor=unconfined.",
            **data,
        )
    if confinement.selinux_enforcing and ":unconfined_" not in (confinement.selinux or ":unconfined_"):
        confined = True
        yield warning(
            f"SELinux is enforced on this process ({confinement.selinux}): criu may not reach into the job.",
            "Start the container with --security-opt label=disable, or run ckptctl unconfined.",
            **data,
        )
    if confinement.seccomp:
        confined = True
        yield warning("A seccomp filter is on this process: system calls that criu needs may be refused.", **data)
    if not confined:
        yield ok("No security module and no filter confines this process.", **data)


def _container(confinement: Confinement) -> Iterator[Problem]:
    data = {"container": confinement.container, "first_pid_namespace": confinement.first_pid_namespace}
    if confinement.container is None and confinement.first_pid_namespace:
        yield ok("This is no container.", **data)
        return
    kind = confinement.container or "a PID namespace of its own"
    yield ok(f"This is a container ({kind}): a snapshot restores where the same image and mounts are.", **data)


def _pid_choice(kernel: Kernel) -> Iterator[Problem]:
    data = {"clone3_set_tid": kernel.clone3_set_tid, "last_pid_writable": kernel.last_pid_writable}
    if kernel.clone3_set_tid:
        yield ok("New processes can be given the pids of the dump (clone3).", **data)
    elif kernel.last_pid_writable:
        yield warning(
            "clone3 cannot choose a pid here, only the older ns_last_pid can: on a busy machine another process may"
            " take it first.",
            **data,
        )
    else:
        yield error("Neither clone3 nor ns_last_pid can choose the pid of a new process: nothing can be restored.")


def _packet_filter(machine: Machine) -> Iterator[Problem]:
    data = {"nftables": machine.nftables, "iptables": machine.iptables}
    if machine.nftables or (machine.iptables and "CAP_NET_ADMIN" in machine.capabilities):
        yield ok(f"Connections can be held still by {'nftables' if machine.nftables else 'iptables'}.", **data)
    else:
        yield warning(
            "Neither nftables nor iptables can be used: a connection to the outside may be reset during a dump.", **data
        )


def _userfaultfd(kernel: Kernel) -> Iterator[Problem]:
    said = {
        Offer.HERE: "userfaultfd is here.",
        Offer.FORBIDDEN: "userfaultfd is not permitted to this user; ckptctl does without.",
        Offer.MISSING: "The kernel has no userfaultfd; ckptctl does without.",
    }
    yield ok(said[kernel.userfaultfd], userfaultfd=kernel.userfaultfd.value)


def _soft_dirty(kernel: Kernel) -> Iterator[Problem]:
    here = "The kernel tells" if kernel.soft_dirty else "The kernel does not tell"
    without = "" if kernel.soft_dirty else "; every dump is whole"
    yield ok(f"{here} which pages have changed since (soft-dirty){without}.", soft_dirty=kernel.soft_dirty)


def _first_process(machine: Machine) -> Iterator[Problem]:
    first = machine.first_process
    data = {"name": first.name, "zombies": first.zombies}
    if not first.name:
        yield skipped("Process 1 cannot be seen.")
    elif first.zombies:
        count = f"{first.zombies} ended processes" if first.zombies > 1 else "an ended process"
        yield warning(f"Process 1 ({first.name}) leaves {count} unreaped, whose pids stay taken.", **data)
    else:
        yield ok(f"Process 1 ({first.name}) reaps what has ended.", **data)


CHECKS: Final = (
    MachineCheck(
        "kernel-options",
        _GROUP,
        "Without its checkpoint options the kernel does not tell what a process holds, nor takes it back.",
        "Use a kernel with these options, as those of the distributions are.",
        about_both(lambda facts: facts.machine, lambda facts: facts.kernel, _kernel),
    ),
    MachineCheck(
        "privileges",
        _GROUP,
        "criu looks into processes and recreates them, for which the kernel asks for one capability each.",
        "Run ckptctl as root; in a container, start that with --privileged, or with --cap-add for what is missing.",
        _privileges,
    ),
    MachineCheck(
        "restore-privileges",
        _GROUP,
        "A restore sets for every process what only these capabilities allow: a dump that works does not mean that a"
        " restore does.",
        "Run the restore as root with these capabilities: --privileged, or --cap-add for what is missing.",
        about(lambda facts: facts.machine, _restore_privileges),
    ),
    MachineCheck(
        "tracing",
        _GROUP,
        "A dump stops every thread by tracing it, which Yama may forbid.",
        "Run ckptctl as root, or: sysctl kernel.yama.ptrace_scope=0",
        about(lambda facts: facts.machine, _tracing),
    ),
    MachineCheck(
        "root",
        _GROUP,
        "Jobs of other users, and much of what a restore sets, are for root alone.",
        "Run ckptctl as root of the host for those.",
        about_both(lambda facts: facts.machine, lambda facts: facts.confinement, _user),
    ),
    MachineCheck(
        "security-modules",
        _GROUP,
        "AppArmor, SELinux and seccomp filters refuse calls in the middle of a dump or a restore.",
        "Start the container with --security-opt seccomp=unconfined.",
        about(lambda facts: facts.confinement, _security_modules),
    ),
    MachineCheck(
        "container",
        _GROUP,
        "What a snapshot expects around it (mounts, devices, pids) is that of the container.",
        "Restore in a container of the same image.",
        about(lambda facts: facts.confinement, _container),
    ),
    MachineCheck(
        "pid-choice",
        _GROUP,
        "A restored process must have the pid that it had.",
        "Use Linux 5.5 or newer, and allow clone3 in the seccomp filter of the container.",
        about(lambda facts: facts.kernel, _pid_choice),
    ),
    MachineCheck(
        "first-process",
        _GROUP,
        "Orphans of a job become children of process 1; where it does not reap them, a restore finds their pids taken.",
        "Start the container with an init that reaps: docker run --init, or tini.",
        about(lambda facts: facts.machine, _first_process),
    ),
    MachineCheck(
        "packet-filter",
        _GROUP,
        "While a job is dumped, packets for its connections must not reach a kernel that does not know them.",
        "Give ckptctl CAP_NET_ADMIN and a kernel with nf_tables (modprobe nf_tables), or install iptables.",
        about(lambda facts: facts.machine, _packet_filter),
    ),
    MachineCheck(
        "kernel-userfaultfd",
        _GROUP,
        "Memory could be brought in after a restore, page by page; nothing depends on it.",
        "Nothing has to be done.",
        about(lambda facts: facts.kernel, _userfaultfd),
    ),
    MachineCheck(
        "soft-dirty",
        _GROUP,
        "Dumps of what has changed alone would need it; nothing depends on it.",
        "Nothing has to be done.",
        about(lambda facts: facts.kernel, _soft_dirty),
    ),
)
