"""The checks as data, and those whose facts this machine may lack: real trees and machines with one fact changed."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ckptctl.host.machine import Machine, read_machine
from ckptctl.preflight.finding import Finding, Level
from ckptctl.preflight.tree import CHECKS, findings
from ckptctl.process.files import FileKind
from ckptctl.process.member import Process
from ckptctl.process.tree import Tree, read_tree
from support import Jobs, wait_for
from support.shapes import started

MACHINE = replace(read_machine(), capabilities=frozenset({"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"}), ptrace_scope=None)


def amiss(tree: Tree, machine: Machine = MACHINE) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(tree, machine) if finding.level is not Level.OK}


@pytest.fixture
def tree(start_job: Jobs) -> Tree:
    """A tree that nothing is amiss with."""
    with started(start_job, "device", "--path", "/dev/urandom") as shape:
        return read_tree(shape.pid)


def with_root(tree: Tree, root: Process) -> Tree:
    return replace(tree, processes=(root, *tree.processes[1:]))


def test_checks_are_complete() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for check in CHECKS:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", check.name)
        for sentence in (check.protects, check.fine, check.remedy):
            assert sentence.endswith(".")


def test_every_check_says_that_all_is_well(tree: Tree) -> None:
    found = findings(tree, MACHINE)
    assert [finding.check for finding in found] == [check.name for check in CHECKS]
    assert {finding.level for finding in found} == {Level.OK}


def test_without_capabilities_nothing_can_be_dumped(tree: Tree) -> None:
    assert amiss(tree, replace(MACHINE, capabilities=frozenset()))["capabilities"].level is Level.ERROR
    alone = replace(MACHINE, capabilities=frozenset({"CAP_CHECKPOINT_RESTORE"}))
    assert amiss(tree, alone) == {}


@pytest.mark.parametrize("scope", [0, 1, 2, 3])
@pytest.mark.parametrize("may_trace", [True, False])
def test_yama_lets_only_those_trace_who_have_the_right(scope: int, may_trace: bool, tree: Tree) -> None:
    """See yama_ptrace_access_check of security/yama/yama_lsm.c: criu is no parent of the job."""
    rights = MACHINE.capabilities | ({"CAP_SYS_PTRACE"} if may_trace else set())
    found = amiss(tree, replace(MACHINE, ptrace_scope=scope, capabilities=rights)).get("capabilities")
    forbidden = scope == 3 or (scope > 0 and not may_trace)
    assert (found.level if found else None) is (Level.ERROR if forbidden else None)
    # Both ways that the remedy names lead to a machine on which nothing is found.
    if found and scope < 3:
        assert "kernel.yama.ptrace_scope=0" in str(found.remedy)
        assert "CAP_SYS_PTRACE" in str(found.remedy)


def test_processes_of_others_need_a_capability(tree: Tree) -> None:
    other = replace(MACHINE, user_id=MACHINE.user_id + 1)
    assert amiss(tree, other) == {}
    assert "limits" in amiss(tree, replace(other, capabilities=frozenset({"CAP_SYS_ADMIN"})))


def test_what_is_hidden_is_refused(tree: Tree) -> None:
    found = amiss(with_root(tree, replace(tree.root, hidden=True)))["visible"]
    assert found.level is Level.ERROR
    assert str(tree.root.pid) in found.summary


def test_gpus_are_a_check_of_their_own(tree: Tree) -> None:
    files = tuple(
        replace(file, path="/dev/nvidia0", special=(195, 0)) if file.kind is FileKind.DEVICE and file.fd > 2 else file
        for file in tree.root.files
    )
    found = amiss(with_root(tree, replace(tree.root, files=files)))
    assert set(found) == {"gpu-device"}
    assert "/dev/nvidia0" in found["gpu-device"].summary


def test_connections_outside_want_a_network_lock(start_job: Jobs) -> None:
    with started(start_job, "tcp_outside") as shape:
        tree = read_tree(shape.pid)
    assert set(amiss(tree, replace(MACHINE, nftables=True))) == {"tcp-outside"}
    unlocked = replace(MACHINE, nftables=False, iptables=True)
    assert set(amiss(tree, unlocked)) == {"tcp-outside", "network-lock"}
    rights = MACHINE.capabilities | {"CAP_NET_ADMIN"}
    assert set(amiss(tree, replace(unlocked, capabilities=rights))) == {"tcp-outside"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount namespace")
def test_a_mount_namespace_is_a_warning(start_job: Jobs) -> None:
    job = start_job(["unshare", "--mount", "sh", "-c", "exec sleep 60 </dev/null >out 2>&1"])
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    found = amiss(read_tree(job.pid))
    assert {name: finding.level for name, finding in found.items()} == {"mount-namespace": Level.WARNING}


def test_a_process_with_several_is_named_once(start_job: Jobs) -> None:
    with started(start_job, "io_uring") as shape:
        tree = read_tree(shape.pid)
    ring = next(file for file in tree.root.files if file.kind is FileKind.IO_URING)
    more = (*tree.root.files, replace(ring, fd=98), replace(ring, fd=99))
    said = findings(with_root(tree, replace(tree.root, files=more)), MACHINE)
    found = [item for item in said if item.level is Level.ERROR]
    assert len(found) == 1
    assert f"descriptors {ring.fd}, 98, 99" in found[0].summary
    assert dict(found[0].data)["pid"] == str(shape.pid)
