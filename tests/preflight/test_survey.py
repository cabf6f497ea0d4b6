"""Gathering the facts: on this machine as it is, and beside programs, libraries and file systems that hang."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckptctl.criu.program import Criu
from ckptctl.host.machine import read_machine
from ckptctl.preflight import essentials, ready
from ckptctl.preflight.cluster_facts import SlurmFacts
from ckptctl.preflight.criu_facts import CriuFacts
from ckptctl.preflight.finding import Level
from ckptctl.preflight.survey import Facts, Inquiry, gather
from ckptctl.preflight.unknown import Unknown
from support import CommandLine, Jobs
from support.machines import UBUNTU_24
from support.shapes import started

NOW = datetime(2026, 11, 21, tzinfo=UTC)
_LIMIT_S = 1.0
# What a busy machine may take on top; a hang would take for ever.
_PATIENCE_S = 10.0


def ask(store: Path, environment: Mapping[str, str] | None = None, limit_s: float = 30.0) -> Facts:
    return gather(Inquiry(store, {**os.environ, **(environment or {})}, NOW, limit_s=limit_s))


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script that also leaves the pids of those who run it in `pids`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho $$ >>{folder}/pids\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A folder for programs; those still running are killed afterwards."""
    folder = tmp_path / "programs"
    yield folder
    pids = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
    for pid in map(int, pids):
        try:
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_this_machine_is_known(tmp_path: Path) -> None:
    facts = ask(tmp_path / "not" / "there" / "yet")
    unknown = [name for name in facts.__slots__ if isinstance(getattr(facts, name), Unknown)]
    assert unknown == []
    assert facts.place.path == str(tmp_path.resolve())  # type: ignore[union-attr]
    assert facts.machine.kernel == os.uname().release  # type: ignore[union-attr]
    found = ready.findings(facts)
    assert {one.group for one in found} == set(ready.GROUPS)


@pytest.mark.requires_criu
def test_where_criu_works_nothing_of_criu_stands_in_the_way(tmp_path: Path, criu: Path) -> None:
    facts = ask(tmp_path, {"CKPTCTL_CRIU": str(criu)})
    assert isinstance(facts.criu, CriuFacts)
    assert facts.criu.looks_good
    assert facts.criu.starts
    assert facts.criu.plugin_folder
    assert "get_rseq_conf" in facts.criu.features
    assert [one for one in ready.findings(facts) if one.group == "criu" and one.level is Level.ERROR] == []


def test_a_criu_that_hangs_when_it_checks_is_waited_for_no_longer(tmp_path: Path, programs: Path) -> None:
    script = 'case "$1" in --version) echo "Version: 4.2.1";; *) exec sleep 300;; esac'
    hanging = program(programs, "criu", script)
    began = time.monotonic()
    facts = ask(tmp_path, {"CKPTCTL_CRIU": str(hanging)}, _LIMIT_S)
    assert time.monotonic() - began < _PATIENCE_S
    found = {one.check: one for one in ready.findings(facts)}
    assert found["criu-check"].level in (Level.WARNING, Level.SKIPPED)


def test_a_criu_that_hangs_at_once_is_waited_for_no_longer(tmp_path: Path, programs: Path) -> None:
    hanging = program(programs, "criu", "exec sleep 300")
    began = time.monotonic()
    facts = ask(tmp_path, {"CKPTCTL_CRIU": str(hanging)}, _LIMIT_S)
    assert time.monotonic() - began < _PATIENCE_S
    found = {one.check: one for one in ready.findings(facts)}
    assert found["criu"].level in (Level.ERROR, Level.SKIPPED)
    assert "within" in found["criu"].summary


def test_a_management_library_that_hangs_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynvml.py").write_text("import time\ntime.sleep(300)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    facts = ask(tmp_path, limit_s=_LIMIT_S)
    assert time.monotonic() - began < _PATIENCE_S
    said = facts.cuda.reason if isinstance(facts.cuda, Unknown) else str(facts.cuda.nvml.reason)
    assert "within 1 s" in said


@pytest.fixture
def dead_server(tmp_path: Path) -> Iterator[Path]:
    """A file system whose server takes no request: every access waits."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "dead"
    folder.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("no FUSE here")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options):
        os.close(server)
        pytest.skip("no file systems may be mounted here")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)  # MNT_DETACH
        os.close(server)


def test_a_file_server_that_hangs_is_waited_for_no_longer(dead_server: Path) -> None:
    began = time.monotonic()
    facts = ask(dead_server / "store", limit_s=_LIMIT_S)
    assert time.monotonic() - began < _PATIENCE_S
    assert isinstance(facts.place, Unknown)
    assert facts.mount.kind == "fuse"  # type: ignore[union-attr]
    found = {one.check: one for one in ready.findings(facts)}
    assert found["store-space"].level is Level.ERROR


@pytest.mark.requires_criu
def test_a_store_on_such_a_server_is_named_by_check(dead_server: Path, ckptctl: CommandLine, start_job: Jobs) -> None:
    ckptctl.environment["CKPTCTL_STORE"] = str(dead_server / "store")
    with started(start_job, "append_log") as shape, ThreadPoolExecutor() as pool:  # each waits to its limit
        shape.wait_steps(3)
        of_machine = pool.submit(ckptctl, "check", "--json", timeout_s=120)
        of_job = pool.submit(ckptctl, "check", "--pid", str(shape.pid), "--json", timeout_s=120)
        named = "--store", str(dead_server / "store")  # by an option it is not looked at any earlier
        of_snapshot = pool.submit(ckptctl, "check", "--snapshot", "latest", *named, timeout_s=120)
        result = of_machine.result().check(5).document["result"]
        assert "store-space" in {one["check"] for one in result["findings"] if one["level"] == "error"}
        result = of_job.result().check(5).document["result"]
        (found,) = (one for one in result["findings"] if one["level"] == "error")
        assert (found["check"], found["remedy"]) == (
            "space",
            "See whether the folder can be listed; mount its file system again.",
        )
        assert result["job"]["estimate"]["frozen_s"] is None
        assert "Nothing was heard about" in of_snapshot.result().check(16).stderr


def test_slurm_is_asked_about_the_job(tmp_path: Path, programs: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n#SBATCH --signal=B:USR1@240\nsleep 1\n")
    answers = f"""case "$2" in
config) printf 'KillWait                = 30 sec\\nPreemptType             = preempt/qos\\n' ;;
job) echo 'JobId=77 Requeue=1 Restarts=2 Partition=gpu EndTime=2026-11-22T01:00:00 Command={script}' ;;
partition) echo "PartitionName=$4 GraceTime=30 PreemptMode=REQUEUE" ;;
esac"""
    program(programs, "scontrol", answers)
    facts = ask(tmp_path, {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"})
    assert isinstance(facts.slurm, SlurmFacts)
    assert facts.slurm.signal == "B:USR1@240"
    found = {one.check: one for one in ready.findings(facts)}
    assert dict(found["slurm-requeue"].data)["restarts"] == "2"
    assert dict(found["slurm-signal"].data)["seconds"] == "240"
    assert found["slurm-preemption"].level is Level.WARNING
    assert dict(found["slurm-preemption"].data)["grace_s"] == "30"


def test_a_slurm_that_hangs_is_waited_for_no_longer(tmp_path: Path, programs: Path) -> None:
    program(programs, "scontrol", "exec sleep 300")
    began = time.monotonic()
    facts = ask(tmp_path, {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}, _LIMIT_S)
    assert time.monotonic() - began < _PATIENCE_S
    assert isinstance(facts.slurm, SlurmFacts)
    assert "did not end" in str(facts.slurm.silence)


def test_without_criu_the_reason_is_given(tmp_path: Path) -> None:
    facts = ask(tmp_path, {"CKPTCTL_CRIU": str(tmp_path / "missing")})
    found = {one.check: one for one in ready.findings(facts)}
    assert found["criu"].level is Level.ERROR
    assert str(tmp_path / "missing") in found["criu"].summary


def test_what_a_dump_begins_with_needs_no_survey() -> None:
    machine = UBUNTU_24.machine
    assert not isinstance(machine, Unknown)
    criu = Criu(Path("/usr/sbin/criu"), (4, 2, 1), "PATH")
    assert essentials.findings(machine, criu, NOW) == ()
    newer = replace(machine, kernel="6.18.44", kernel_version=(6, 18, 44))
    old = replace(criu, version=(3, 17, 1))
    assert [one.check for one in essentials.findings(newer, old, NOW)] == ["criu", "criu-kernel"]
    powerless = replace(read_machine(), capabilities=frozenset(), ptrace_scope=3)
    assert {one.check for one in essentials.findings(powerless, criu, NOW)} == {"privileges", "tracing"}
    unconnected = replace(machine, capabilities=machine.capabilities - {"CAP_NET_ADMIN"})
    assert essentials.findings(unconnected, criu, NOW) == ()
    found = essentials.findings(unconnected, criu, NOW, restoring=True)
    assert [one.check for one in found] == ["restore-privileges"]
