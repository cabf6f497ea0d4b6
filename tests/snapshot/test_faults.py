"""Dumps that meet real faults: full disks, dead criu, wrong targets. The job runs on, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from support import CommandLine, Jobs, wait_for
from support.jobs import state
from support.leftovers import assert_goes_on, assert_nothing_is_left, not_private, packet_filters
from support.shapes import Shape
from support.tmpfs import fill, tmpfs, use_up_inodes

pytestmark = [pytest.mark.requires_criu, pytest.mark.skipif(os.geteuid() != 0, reason="mounts take root")]

Start = Callable[..., AbstractContextManager[Shape]]
Paused = Callable[..., subprocess.Popen[str]]
MIB = 1 << 20


def listed(ckptctl: CommandLine) -> list[str]:
    return [entry["id"] for entry in ckptctl.json("list")["result"]]


def memory_is_being_written(ckptctl: CommandLine, least_bytes: int = MIB) -> bool:
    return sum(path.stat().st_size for path in ckptctl.store.glob("staging/*/images/pages*")) > least_bytes


@pytest.fixture
def filters(ckptctl: CommandLine) -> Iterator[None]:
    """No packet filter of criu is left by the test."""
    yield
    assert not packet_filters(ckptctl.store.parent)


# Full disks.


def test_a_disk_that_is_too_small_is_refused_beforehand(counting: Shape, ckptctl: CommandLine) -> None:
    with tmpfs(ckptctl.store, "size=32m"):
        refused = ckptctl("dump", "--pid", str(counting.pid)).check(14)
        assert "needs about" in refused.stderr
        assert "runs on" in refused.stderr
        assert listed(ckptctl) == []
        assert_goes_on(counting)
        assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("images", ["stream", "directory"])
def test_a_disk_that_fills_up_while_criu_writes(images: str, start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape("memory", "--mib", "400") as shape, tmpfs(ckptctl.store, "size=600m"):
        process = ckptctl.start("dump", "--pid", str(shape.pid), "--images", images)
        wait_for(lambda: memory_is_being_written(ckptctl), 30, "pages")
        writers = (*children(process.pid), process.pid)
        for pid in writers:  # else they might be done before the disk is full
            os.kill(pid, signal.SIGSTOP)
        fill(ckptctl.store)
        for pid in writers:
            os.kill(pid, signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 14, said
        assert ("No space left" if images == "stream" else "disk is full") in said
        assert "runs on" in said
        assert_goes_on(shape)
        assert listed(ckptctl) == []
        assert_nothing_is_left(ckptctl)
        (log,) = [line.removeprefix("  criu's log: ") for line in said.splitlines() if "criu's log" in line]
        assert Path(log).read_text()
        assert not_private(ckptctl.state) == []


@pytest.mark.parametrize(("step", "exhaust"), [("describe", fill), ("commit", use_up_inodes)])
def test_a_disk_that_fills_up_after_criu(
    step: str, exhaust: Callable[[Path], None], counting: Shape, ckptctl: CommandLine, paused: Paused
) -> None:
    with tmpfs(ckptctl.store, "size=400m,nr_inodes=2000"):
        process = paused("started", step, "dump", "--pid", str(counting.pid))
        assert not counting.job.running(), "criu has left it stopped"
        exhaust(ckptctl.store)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 14, said
        assert "runs on" in said
        assert_goes_on(counting)
        assert listed(ckptctl) == []
        assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("step", ["freeze", "commit"])
def test_a_full_disk_under_the_journal(step: str, counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    with tmpfs(ckptctl.state, "size=4m,nr_inodes=500"):
        process = paused("started", step, "dump", "--pid", str(counting.pid))
        use_up_inodes(ckptctl.state)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 14, said
        assert "runs on" in said
        assert_goes_on(counting)
        assert_nothing_is_left(ckptctl)


def test_a_full_disk_under_the_journal_once_the_snapshot_is_complete(
    counting: Shape, ckptctl: CommandLine, paused: Paused
) -> None:
    with tmpfs(ckptctl.state, "size=4m,nr_inodes=500"):
        process = paused("started", "end", "dump", "--pid", str(counting.pid))
        use_up_inodes(ckptctl.state)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert not counting.job.processes()
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize(("step", "images"), [("describe", "directory"), ("commit", "directory"), ("commit", "stream")])
def test_a_store_that_becomes_read_only(
    step: str, images: str, counting: Shape, ckptctl: CommandLine, paused: Paused
) -> None:
    with tmpfs(ckptctl.store, "size=400m") as store:
        process = paused("started", step, "dump", "--pid", str(counting.pid), "--images", images)
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 10, said
        assert "runs on" in said
        assert_goes_on(counting)
        subprocess.run(["mount", "-o", "remount,rw", store], check=True)
        assert listed(ckptctl) == []
        ckptctl("dump", "--pid", str(counting.pid)).check()
        assert_nothing_is_left(ckptctl)


def test_a_store_that_is_removed_meanwhile(counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    process = paused("started", "describe", "dump", "--pid", str(counting.pid))
    subprocess.run(["rm", "-r", ckptctl.store], check=True)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (10, 13), said
    assert "runs on" in said
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# Where a snapshot is to go.


def occupy(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine").touch()


@pytest.mark.parametrize("occupy", [occupy, Path.touch, lambda path: path.symlink_to("/dev/null")])
def test_a_target_with_something_in_it_is_refused(
    occupy: Callable[[Path], None], counting: Shape, ckptctl: CommandLine, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    occupy(target)
    before = target.lstat()
    refused = ckptctl("dump", "--pid", str(counting.pid), "--to", target).check(10)
    assert f"{target.resolve()} is there already" in refused.stderr
    now = target.lstat()
    assert (now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns) == (
        before.st_ino, before.st_mode, before.st_size, before.st_mtime_ns,
    )  # fmt: skip
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)
    assert list(tmp_path.rglob(".*ckptctl-*")) == []


def test_a_mount_point_is_refused(counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mnt", "size=400m") as mounted:
        refused = ckptctl("dump", "--pid", str(counting.pid), "--to", mounted).check(10)
        assert str(mounted / "snapshot") in refused.stderr
        assert_goes_on(counting)
        ckptctl("dump", "--pid", str(counting.pid), "--to", mounted / "snapshot").check()
        ckptctl("restore", mounted / "snapshot").check()
        assert_goes_on(counting)
        assert_nothing_is_left(ckptctl)
        counting.job.kill()


@pytest.mark.parametrize("name", ["plain", "sp ace", "quo'te\"s", "line\nbreak", "-dash", "$(touch x)", "ümlaut"])
def test_a_target_of_any_name(name: str, counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    """Relative to the working folder, missing or empty."""
    if len(name) % 2:
        (tmp_path / name).mkdir(mode=0o755)
    ckptctl("dump", "--pid", str(counting.pid), "--to", f"./{name}", cwd=tmp_path).check()
    assert not_private(tmp_path / name) == []
    report = ckptctl("restore", f"./{name}", "--json", cwd=tmp_path).check().document
    assert report["result"]["folder"] == str(tmp_path / name)
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "x"))) == []


def test_a_target_whose_parent_cannot_be_made(counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = ckptctl("dump", "--pid", str(counting.pid), "--to", tmp_path / "file" / "sub").check(10)
    assert "ckptctl: " in refused.stderr
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# criu.


def test_criu_killed_while_it_holds_connections(start_shape: Start, ckptctl: CommandLine, filters: None) -> None:
    """It leaves them locked; ckptctl gives them back to the job, which can be dumped again."""
    with start_shape("tcp_server") as shape:
        said = None
        while said is None:
            said = dump_whose_criu_dies_locking(shape, ckptctl)
        assert "runs on" in said
        assert_goes_on(shape)
        assert_nothing_is_left(ckptctl)
        ckptctl("dump", "--pid", str(shape.pid)).check()
        ckptctl("restore", "latest").check()
        assert_goes_on(shape)


def dump_whose_criu_dies_locking(shape: Shape, ckptctl: CommandLine) -> str | None:
    """What ckptctl says of a criu that is killed once it has locked a connection; None where it was faster."""
    process = ckptctl.start("dump", "--pid", str(shape.pid), "--leave-running")
    log = wait_for(lambda: next(ckptctl.store.glob("staging/*/logs/dump.log"), None), 20, "criu's log")
    criu = children(process.pid)[0]
    wait_for(lambda: "add element" in read(log) or process.poll() is not None, 20, "a lock")
    with suppress(ProcessLookupError):
        os.kill(criu, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    return said if process.returncode == 7 else None


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def test_criu_killed_while_it_writes(start_shape: Start, ckptctl: CommandLine, filters: None) -> None:
    with start_shape("memory", "--mib", "400") as shape:
        process = ckptctl.start("dump", "--pid", str(shape.pid))
        wait_for(lambda: memory_is_being_written(ckptctl), 30, "pages")
        (criu,) = list(children(process.pid))
        os.kill(criu, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 7, said
        assert "SIGKILL" in said
        assert "runs on" in said
        assert_goes_on(shape)
        assert listed(ckptctl) == []
        assert_nothing_is_left(ckptctl)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


_FAILING = """#!/bin/sh
case "$*" in --version*) echo 'Version: 4.2.1'; exit 0;; esac
echo 'cannot go on today' >&2
exit 1
"""


def test_a_criu_that_gives_up_at_once(counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    wrapper = tmp_path / "criu"
    wrapper.write_text(_FAILING)
    wrapper.chmod(0o755)
    failed = ckptctl("dump", "--pid", str(counting.pid), environment={"CKPTCTL_CRIU": str(wrapper)}).check(7)
    assert "cannot go on today" in failed.stderr
    assert "runs on" in failed.stderr
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("program", ["/no/such/criu", "/dev/null", "/bin/true", "/etc", "/etc/passwd", "criu\nx"])
def test_a_criu_that_is_none(program: str, counting: Shape, ckptctl: CommandLine) -> None:
    refused = ckptctl("dump", "--pid", str(counting.pid), environment={"CKPTCTL_CRIU": program}).check(15)
    assert program in refused.stderr
    assert "$CKPTCTL_CRIU" in refused.stderr
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# Several at once.


def test_two_dumps_of_one_job(counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    first = paused("finished", "freeze", "dump", "--pid", str(counting.pid), "--leave-running")
    refused = ckptctl("dump", "--pid", str(counting.pid)).check(11)
    assert f"process {first.pid} on " in refused.stderr
    second = ckptctl.start("dump", "--pid", str(counting.pid), "--lock-wait", "60s")
    wait_for(lambda: state(second.pid) == "S", 20, "the second one waits")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    assert second.wait(60) == 0, second.communicate()
    assert not counting.job.processes()
    assert len(listed(ckptctl)) == 2
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_waiting_for_a_dump_that_ends_the_job(counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    first = paused("finished", "freeze", "dump", "--pid", str(counting.pid))
    second = ckptctl.start("dump", "--pid", str(counting.pid), "--lock-wait", "60s")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    _, said = second.communicate(timeout=60)
    assert second.returncode == 6, said
    assert len(listed(ckptctl)) == 1
    assert_nothing_is_left(ckptctl)


def test_a_child_of_a_tree_that_is_being_dumped(start_shape: Start, ckptctl: CommandLine, paused: Paused) -> None:
    with start_shape("pipe_child") as shape:
        child = next(pid for pid in shape.job.processes() if pid != shape.pid)
        first = paused("finished", "freeze", "dump", "--pid", str(shape.pid), "--leave-running")
        refused = ckptctl("dump", "--pid", str(child), "--run", "child").check(11)
        assert f"process {first.pid} on " in refused.stderr
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) == 0
        assert_goes_on(shape)
        assert_nothing_is_left(ckptctl)


def test_a_job_that_ends_before_criu_comes(counting: Shape, ckptctl: CommandLine, paused: Paused) -> None:
    process = paused("started", "freeze", "dump", "--pid", str(counting.pid))
    counting.job.kill()
    wait_for(lambda: state(counting.pid) == "X", 10, "the end of the job")
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (6, 8), said
    assert "gone" in said or "has ended" in said
    assert listed(ckptctl) == []
    assert_nothing_is_left(ckptctl)


# Interruptions.


def test_control_c_while_criu_writes(start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape("memory", "--mib", "1024") as shape:
        process = ckptctl.start("dump", "--pid", str(shape.pid))
        wait_for(lambda: memory_is_being_written(ckptctl, 100 * MIB), 30, "100 MiB of pages")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)
        assert process.returncode == 130, said
        assert "runs on" in said
        assert_goes_on(shape)
        assert listed(ckptctl) == []
        assert_nothing_is_left(ckptctl)


def test_sigterm_again_and_again(start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape("memory", "--mib", "400") as shape:
        process = ckptctl.start("dump", "--pid", str(shape.pid))
        wait_for(lambda: memory_is_being_written(ckptctl), 30, "pages")
        stop = threading.Event()

        def nag() -> None:
            while not stop.wait(0.01):
                process.send_signal(signal.SIGTERM)

        nagging = threading.Thread(target=nag)
        nagging.start()
        try:
            _, said = process.communicate(timeout=10)
        finally:
            stop.set()
            nagging.join()
        assert process.returncode in (143, -signal.SIGTERM), said  # one more came when all was said
        assert "runs on" in said
        assert_goes_on(shape)
        assert listed(ckptctl) == []
        assert_nothing_is_left(ckptctl)


# Processes that are not to be dumped.


def test_a_kernel_thread_is_refused(ckptctl: CommandLine) -> None:
    refused = ckptctl("dump", "--pid", "2").check(6)
    assert "kernel" in refused.stderr
    assert_nothing_is_left(ckptctl)


def test_a_parent_of_ckptctl_is_refused(ckptctl: CommandLine) -> None:
    for pid in (1, os.getpid()):
        refused = ckptctl("dump", "--pid", str(pid)).check(2)
        assert "would freeze itself" in refused.stderr
    assert_nothing_is_left(ckptctl)


@pytest.mark.parametrize("pid", ["0", "-1", "4194304", "99999999999999999999", "x"])
def test_no_process(pid: str, ckptctl: CommandLine) -> None:
    ended = ckptctl("dump", "--pid", pid)
    assert ended.status in (2, 6), ended
    assert "Traceback" not in ended.stderr
    assert_nothing_is_left(ckptctl)


def test_a_zombie_is_refused(start_job: Jobs, ckptctl: CommandLine) -> None:
    job = start_job([sys.executable, "-c", "pass"], reap=False)
    wait_for(lambda: state(job.pid) == "Z", 10, "a zombie")
    refused = ckptctl("dump", "--pid", str(job.pid))
    refused.check(6)
    assert "has not asked" in refused.stderr
    assert_nothing_is_left(ckptctl)


@pytest.fixture
def nobodys_home() -> Iterator[Path]:
    """A folder that nobody can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="ckptctl-") as folder:
        os.chown(folder, 65534, 65534)
        yield Path(folder)


def test_somebody_else_s_job_is_refused(counting: Shape, ckptctl: CommandLine, nobodys_home: Path) -> None:
    home = nobodys_home
    code = "import sys; from ckptctl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    words += ["dump", "--pid", str(counting.pid)]
    settings = {"CKPTCTL_STORE": str(home / "store"), "CKPTCTL_STATE": str(home / "state"), "HOME": str(home)}
    done = subprocess.run(words, env={**ckptctl.environment, **settings}, cwd="/", capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "as root" in done.stderr
    assert "Traceback" not in done.stderr
    assert str(counting.pid) in done.stderr
    assert_goes_on(counting)
    assert not list(home.rglob("*.json"))
    assert not [*home.glob("store/staging/*"), *home.glob("store/runs/*")]
