"""Predictions against outcomes: what preflight says of a process, and what CRIU then does with it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from ckptctl.criu.choice import choose_options
from ckptctl.host.machine import read_machine
from ckptctl.preflight.finding import Level, blockers
from ckptctl.preflight.tree import findings
from ckptctl.process.control import taken
from ckptctl.process.tree import read_tree
from support import CommandLine, Jobs, wait_for
from support.plain_criu import PlainCriu, goes_on, restored
from support.shapes import started

pytestmark = pytest.mark.requires_criu


class Outcome(Enum):
    """What becomes of a shape: it goes on, is restored but cannot go on, or dump or restore fail."""

    GOES_ON = "goes on"
    SPOILED = "spoiled"
    FAILS = "fails"


@dataclass(frozen=True)
class Row:
    """A shape with its words; `checks` are the names of all findings that are not OK."""

    shape: str
    words: str = ""
    outcome: Outcome = Outcome.GOES_ON
    checks: tuple[str, ...] = ()
    prefix: str = ""

    def __str__(self) -> str:
        return "-".join(f"{self.prefix} {self.shape} {self.words}".replace("/", "").replace("-", "").split())


def fails(shape: str, check: str, words: str = "", prefix: str = "") -> Row:
    return Row(shape, words, Outcome.FAILS, (check,), prefix)


def warned(shape: str, check: str, words: str = "", outcome: Outcome = Outcome.GOES_ON) -> Row:
    return Row(shape, words, outcome, (check,))


ROWS = (
    Row("append_log"),
    Row("truncated_log"),
    Row("threads"),
    Row("pipe_child"),
    Row("fifo"),
    Row("socketpair"),
    Row("socketpair", "--kind seqpacket"),
    Row("socketpair", "--kind datagram"),
    Row("closed_peers"),
    Row("unix_server"),
    Row("unix_server", "--abstract"),
    Row("unix_outside", "--kind sendto"),
    Row("unix_outside", "--kind datagram --absolute"),
    Row("unix_outside", "--kind unaccepted_inside"),
    Row("tcp_server"),
    Row("tcp_server", "--family 6"),
    Row("tcp_server", "--family mapped"),
    Row("tcp_self"),
    Row("tcp_unaccepted"),
    Row("udp"),
    Row("netlink"),
    Row("file_locks"),
    Row("deleted_file", "--mib 100"),
    Row("deleted_file", "--mib 1 --sparse-gib 3"),
    Row("renamed_file"),
    Row("replaced_file"),
    Row("deleted_folder"),
    Row("workers"),
    Row("shared_memory_objects"),
    Row("memory", "--mib 64"),
    Row("timers_signals"),
    Row("event_files"),
    Row("inotify"),
    Row("terminal", "--master inside"),
    Row("zombies"),
    Row("sessions"),
    Row("seccomp"),
    *(
        Row("other_descriptors", f"--kind {kind}")
        for kind in ("pidfd", "fanotify", "namespace", "path", "folder", "proc", "packet", "raw", "aio")
    ),
    Row("device", "--path /dev/kmsg"),
    Row("device", "--path /dev/urandom"),
    Row("device", "--path /dev/zero --mapped"),
    Row("device", "--path /dev/ptmx"),
    Row("namespace", "--kind uts"),
    Row("namespace", "--kind cgroup"),
    Row("sysv_shm", prefix="unshare --ipc"),
    Row("namespace", "--kind net --child", prefix="unshare --net"),
    warned("tcp_outside", "tcp-outside", "--strict"),
    warned("terminal", "terminal-outside", "--master outside"),
    warned("terminal", "terminal-outside", "--master none"),
    warned("pipe_outside", "pipe-outside", "--careful"),
    warned("pipe_outside", "pipe-outside", outcome=Outcome.SPOILED),
    warned("timers_signals", "periodic-timer", "--periodic", Outcome.SPOILED),
    fails("io_uring", "io-uring"),
    fails("io_uring", "io-uring", "--mapped"),
    fails("perf_event", "perf-event"),
    fails("userfaultfd", "userfaultfd"),
    fails("bpf", "bpf"),
    fails("bpf", "bpf", "--program"),
    fails("other_descriptors", "anonymous-inode", "--kind landlock"),
    fails("other_descriptors", "mount", "--kind memfd_secret"),
    fails("other_descriptors", "mount", "--kind mqueue"),
    fails("other_descriptors", "socket-kind", "--kind vsock"),
    fails("other_descriptors", "socket-kind", "--kind mptcp"),
    fails("device", "device", "--path /dev/fuse"),
    fails("device", "device", "--path /dev/net/tun"),
    fails("device", "device", "--path /dev/loop-control"),
    fails("device", "device-mapping", "--path /dev/loop0 --only-mapped"),
    fails("sysv_shm", "sysv-shared-memory"),
    fails("traced", "traced"),
    fails("dead_leader", "first-thread"),
    fails("unix_outside", "unix-stream-outside", "--kind stream"),
    fails("unix_outside", "unix-stream-outside", "--kind seqpacket"),
    fails("unix_outside", "unix-stream-outside", "--kind pair"),
    fails("unix_outside", "unix-stream-outside", "--kind listener"),
    fails("unix_outside", "unix-unaccepted", "--kind unaccepted"),
    fails("unix_outside", "unix-datagram-outside", "--kind datagram"),
    fails("unix_outside", "unix-datagram-outside", "--kind datagram_pair"),
    *(
        fails("namespace", "nested-namespaces", f"--kind {kind} --child")
        for kind in ("uts", "ipc", "net", "mnt", "pid", "user", "cgroup", "time")
    ),
    fails("append_log", "user-namespace", prefix="unshare --user --map-root-user"),
)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_predicted_comes_true(
    row: Row, start_job: Jobs, ckptctl: CommandLine, criu: Path, tmp_path: Path
) -> None:
    with started(start_job, row.shape, *row.words.split(), prefix=row.prefix.split()) as shape:
        shape.wait_steps(3)
        ended = ckptctl("check", "--pid", str(shape.pid), "--json")
        answer = ended.check(5 if row.outcome is Outcome.FAILS else 0).document["result"]
        amiss = [finding for finding in answer["findings"] if finding["level"] != "ok"]
        assert {finding["check"] for finding in amiss} == set(row.checks)
        assert answer["ready"] == (row.outcome is not Outcome.FAILS)
        assert all(finding["remedy"] for finding in amiss)

        tree, machine = read_tree(shape.pid), read_machine()
        succeeded = restored(PlainCriu(criu, tmp_path), shape, choose_options(tree, machine))
        assert succeeded == (row.outcome is not Outcome.FAILS)
        if succeeded:
            assert goes_on(shape) == (row.outcome is Outcome.GOES_ON)


def test_a_restore_waits_for_a_lock_that_is_held_outside(start_job: Jobs, criu: Path, tmp_path: Path) -> None:
    machine = read_machine()
    with started(start_job, "flock_outside") as shape:
        shape.wait_steps(3)
        tree = read_tree(shape.pid)
        (found,) = (finding for finding in findings(tree, machine) if finding.level is not Level.OK)
        assert (found.check, found.level) == ("shared-lock", Level.WARNING)
        holder = int(dict(found.data)["pid"])
        options = choose_options(tree, machine)
        plain = PlainCriu(criu, tmp_path)
        assert plain.dump(shape.pid, options.dump_words())
        wait_for(lambda: not taken(tree.thread_ids), 20, "free process numbers")

        ended = threading.Event()

        def restore() -> None:
            assert plain.restore(options, options.restore_words())
            ended.set()

        thread = threading.Thread(target=restore)
        thread.start()
        assert not ended.wait(1)
        os.kill(holder, signal.SIGKILL)
        assert ended.wait(20)
        thread.join()
        assert goes_on(shape)


def test_limits_of_another_user(start_job: Jobs, criu: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    job = start_job(["setpriv", "--reuid", "65534", "--clear-groups", "sleep", "60"])
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    tree, machine = read_tree(job.pid), read_machine()
    names = {finding.check for finding in blockers(findings(tree, machine))}
    assert names == (set() if "CAP_SYS_RESOURCE" in machine.capabilities else {"limits"})
    plain = PlainCriu(criu, tmp_path)
    assert plain.dump(job.pid, choose_options(tree, machine).dump_words()) == (not names)
