"""Restores that meet what has changed since the dump, and snapshots and journals that were tampered with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Jobs, wait_for
from support.jobs import state
from support.leftovers import assert_goes_on, assert_nothing_is_left, not_private, packet_filters
from support.shapes import Shape
from support.tmpfs import fill, tmpfs

pytestmark = pytest.mark.requires_criu

Start = Callable[..., AbstractContextManager[Shape]]
Paused = Callable[..., subprocess.Popen[str]]


def saved(shape: Shape, ckptctl: CommandLine, *words: str) -> Path:
    """Save the job, ending it; the folder of the snapshot."""
    return Path(ckptctl("dump", "--pid", str(shape.pid), *words, "--json").check().document["result"]["folder"])


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with what it holds."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What has changed since the dump.


def test_the_working_folder_is_gone(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    script = "import time\nn = 0\nwhile True: n += 1; print(n, flush=True); time.sleep(0.02)"
    job = start_job([sys.executable, "-c", script], cwd=folder)
    job.wait_for_lines(5)
    ckptctl("dump", "--pid", str(job.pid)).check()
    lines = job.lines()
    folder.rmdir()
    refused = ckptctl("restore", "latest").check(5)
    assert f"mkdir -p {folder}" in refused.stderr
    assert job.lines() == lines
    folder.mkdir()
    ckptctl("restore", "latest").check()
    assert job.wait_for_lines(len(lines) + 3)[: len(lines)] == lines


@pytest.fixture
def own_program(start_job: Jobs, tmp_path: Path) -> Any:
    """A bash with a libtinfo of its own that counts; the job, the program and the library."""
    program = Path(shutil.copy(Path("/bin/bash").resolve(), tmp_path / "own-bash"))
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    system = next(line.split()[2] for line in linked.splitlines() if "libtinfo" in line)
    library = Path(shutil.copy(Path(system).resolve(), tmp_path / "libtinfo.so.6"))
    script = "n=0; while :; do n=$((n+1)); echo $n; read -t 0.02 < /dev/zero; done"
    script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done"
    job = start_job([program, "-c", script], environment={"LD_LIBRARY_PATH": str(tmp_path)})
    job.wait_for_lines(5)
    return job, program, library


@pytest.mark.parametrize("which", ["program", "library"])
@pytest.mark.parametrize("change", ["appended", "other", "gone"])
def test_a_program_or_library_has_changed(which: str, change: str, own_program: Any, ckptctl: CommandLine) -> None:
    job, program, library = own_program
    ckptctl("dump", "--pid", str(job.pid)).check()
    lines = job.lines()
    changed = program if which == "program" else library
    aside = changed.rename(changed.with_name("aside"))
    if change == "appended":
        changed.write_bytes(aside.read_bytes() + b"\0")
    elif change == "other":
        shutil.copy(Path("/bin/cat").resolve(), changed)
    if change != "gone":
        changed.chmod(0o755)
    refused = ckptctl("restore", "latest").check(5)
    assert str(changed) in refused.stderr
    assert job.lines() == lines
    aside.rename(changed)
    ckptctl("restore", "latest").check()
    assert job.wait_for_lines(len(lines) + 3)[: len(lines)] == lines
    assert_nothing_is_left(ckptctl)


def test_a_port_that_is_taken(start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape("tcp_server") as shape:
        shape.wait_steps(5)
        folder = saved(shape, ckptctl)
        (port,) = {one["port"] for one in json.loads((folder / "manifest.json").read_text())["ports"]}
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            refused = ckptctl("restore", "latest").check(5)
            assert f"Port {port}" in refused.stderr
        ckptctl("restore", "latest").check()
        assert_goes_on(shape)
        assert_nothing_is_left(ckptctl)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts take root")
def test_no_room_for_what_is_cut_off(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    """The log keeps every byte, and so does the second one that was cut before."""
    script = (
        "import sys, time\n"
        "logs = [open(name, 'a', buffering=1) for name in sys.argv[1:]]\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    for log in logs: log.write(f'{n}\\n')\n"
        "    time.sleep(0.02)\n"
    )
    logs = [tmp_path / "one", tmp_path / "two"]
    job = start_job([sys.executable, "-c", script, *logs])
    with tmpfs(ckptctl.store, "size=300m"):
        wait_for(lambda: logs[1].exists() and logs[1].stat().st_size > 20, 20, "lines")
        ckptctl("dump", "--pid", str(job.pid), "--leave-running").check()
        time.sleep(0.2)
        job.kill()
        with open(logs[0], "a") as small, open(logs[1], "a") as large:
            small.write("later\n")
            large.write("later\n" * 1_000_000)
        former = [log.read_bytes() for log in logs]
        fill(ckptctl.store, but=1 << 20)
        failed = ckptctl("restore", "latest").check(14)
        assert "was not restored" in failed.stderr
        assert [log.read_bytes() for log in logs] == former
        assert not job.processes()
        (ckptctl.store / "ballast").unlink()
        restored = ckptctl("restore", "latest", "--json").check().document["result"]["rolled_back"]
        for one in restored:
            log = Path(one["path"])
            index = logs.index(log)
            assert log.read_bytes()[: one["size_bytes"]] + Path(one["tail"]).read_bytes() == former[index]
        assert len(restored) == 2
        assert not_private(ckptctl.store) == []
        job.kill()


# Snapshots that were tampered with.


@pytest.mark.parametrize("what", ["empty", "missing", "file", "other", "nonsense"])
def test_no_snapshot(what: str, ckptctl: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if what in ("empty", "other"):
        path.mkdir()
    if what == "other":
        (path / "images").mkdir()
    if what == "file":
        path.write_text("{}")
    name = "no\nsuch \x1b[31m" if what == "nonsense" else str(path)
    for verb in ("restore", "show", "verify"):
        refused = ckptctl(verb, name).check(4)
        assert "Traceback" not in refused.stderr
    assert_nothing_is_left(ckptctl)


def altered(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


ALTERATIONS: tuple[tuple[Callable[[Any], object], int, str], ...] = (
    (lambda m: m.update(version=99), 15, "99"),
    (lambda m: m.update(version="x"), 13, "version"),
    (lambda m: m["images"]["files"][0].update(name="../../../../etc/passwd"), 13, "passwd"),
    (lambda m: m["images"]["files"][0].update(name="/etc/passwd"), 13, "passwd"),
    (lambda m: m["images"]["files"].pop(), 13, "images/"),
    (lambda m: m.update(id="../../x"), 13, "id"),
    (lambda m: m["tree"].update(root_pid=0), 13, "root_pid"),
    (lambda m: m["tree"]["processes"][0].update(pid=1 << 40), 13, "pid"),
    (lambda m: m["open_files"][0].update(size_bytes=-5), 13, "size_bytes"),
    (lambda m: m["criu"]["options"].append({"flag": "--exec-cmd", "value": "x\0y", "reason": ""}), 13, "NUL"),
    (lambda m: m.clear(), 13, "version"),
)


def test_a_manifest_that_was_altered(counting: Shape, ckptctl: CommandLine) -> None:
    """Refused with a word on what is wrong, listed all the same; nothing outside the snapshot is touched."""
    folder = saved(counting, ckptctl)
    manifest = (folder / "manifest.json").read_bytes()
    before = counting.log.read_bytes()
    for change, status, word in ALTERATIONS:
        (folder / "manifest.json").write_bytes(manifest)
        altered(folder, change)
        for words in (["restore", folder.name], ["restore", str(folder)]):
            refused = ckptctl(*words).check(status)
            assert word in refused.stderr
            assert "Traceback" not in refused.stderr
        assert ckptctl("verify").status in (13, 15)
        assert "Traceback" not in ckptctl("show", folder.name).stderr
    assert folder.name in ckptctl("list").check().stdout
    assert counting.log.read_bytes() == before
    assert not counting.job.processes()
    assert_nothing_is_left(ckptctl)
    ckptctl("rm", folder.name, "--force").check()


def test_a_manifest_that_is_no_json(counting: Shape, ckptctl: CommandLine) -> None:
    folder = saved(counting, ckptctl)
    for text in (b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1' + b"0" * 5000 + b"}", b"[" * 100_000):
        (folder / "manifest.json").write_bytes(text)
        for words in (["restore", folder.name], ["show", folder.name], ["verify"]):
            assert "Traceback" not in ckptctl(*words).check(13).stderr
        (entry,) = ckptctl.json("list")["result"]
        assert not entry["sound"]


def test_terminal_codes_in_a_snapshot_do_not_reach_the_terminal(counting: Shape, ckptctl: CommandLine) -> None:
    saved(counting, ckptctl, "--note", "a\x1b[2Jb\nc")
    for words in (["list"], ["show", "latest"]):
        assert "\x1b" not in ckptctl(*words).check().stdout


# The journal.


@pytest.mark.parametrize("text", [b"", b"{", b'{"version": 7}', b"\xff", b"null"])
def test_a_journal_that_is_damaged_stops_nothing(text: bytes, counting: Shape, ckptctl: CommandLine) -> None:
    journal = ckptctl.state / "journal" / "20261120T193000Z-7f3a.json"
    journal.parent.mkdir(parents=True, mode=0o700)
    journal.write_bytes(text)
    done = ckptctl("dump", "--pid", str(counting.pid)).check()
    assert str(journal) in done.stderr
    assert str(journal) in ckptctl("recover").stderr
    ckptctl("restore", "latest").check()
    assert_goes_on(counting)
    assert journal.read_bytes() == text, "what it stood for is not known"


# Stopped jobs.


def stopped(shape: Shape) -> bool:
    return [state(pid) for pid in shape.job.processes()] == ["T"]


def test_a_job_that_was_stopped_stays_so(counting: Shape, ckptctl: CommandLine, tmp_path: Path) -> None:
    """After a dump that leaves it alone, after one that fails, after one that is interrupted, and after a restore."""
    counting.job.signal(signal.SIGSTOP)
    wait_for(lambda: stopped(counting), 10, "the stop")
    pid = str(counting.pid)
    lines = counting.lines()
    ckptctl("dump", "--pid", pid, "--leave-running").check()
    assert stopped(counting)
    failed = ckptctl("dump", "--pid", pid, "--criu-option", "--no-such-option").check(7)
    assert "stopped" in failed.stderr
    assert stopped(counting)
    assert_nothing_is_left(ckptctl)
    ckptctl("dump", "--pid", pid).check()
    assert "stopped" in ckptctl("restore", "latest").check().stdout
    assert stopped(counting)
    assert counting.lines() == lines
    os.kill(counting.job.processes()[0], signal.SIGCONT)
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


def test_a_job_that_was_stopped_stays_so_when_ckptctl_is_killed(
    counting: Shape, ckptctl: CommandLine, paused: Paused
) -> None:
    counting.job.signal(signal.SIGSTOP)
    wait_for(lambda: stopped(counting), 10, "the stop")
    paused("finished", "freeze", "dump", "--pid", str(counting.pid)).kill()
    said = ckptctl("recover").check().stdout
    assert "stopped" in said
    assert stopped(counting)
    counting.job.signal(signal.SIGCONT)
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)


# Permissions.


def test_nothing_can_be_read_by_others_whatever_the_umask(start_shape: Start, ckptctl: CommandLine) -> None:
    former = os.umask(0)
    try:
        with start_shape("pipe_outside") as shape:
            shape.wait_steps(5)
            ckptctl("dump", "--pid", str(shape.pid), "--leave-running").check()
            shape.wait_steps(shape.steps() + 5)
            ckptctl("dump", "--pid", str(shape.pid), "--criu-option", "--no-such-option").check(7)
            shape.job.kill()
            ckptctl("restore", "latest").check()
            assert_goes_on(shape)
            assert not_private(ckptctl.store) == []
            assert not_private(ckptctl.state) == []
    finally:
        os.umask(former)


# Options of the user's, connections, and what `rm` clears away.


def test_a_connection_is_kept_or_closed_as_asked(start_shape: Start, ckptctl: CommandLine) -> None:
    """--tcp-close takes the place of --tcp-established: a client that insists on its connection then loses it."""
    close = ("--criu-option", "--tcp-close")
    for strict, asked in ((("--strict",), ()), ((), close), (("--strict",), close)):
        with start_shape("tcp_outside", *strict) as shape:
            shape.wait_steps(5)
            saved(shape, ckptctl)
            ckptctl("restore", "latest", *asked).check()
            if strict and asked:
                wait_for(lambda log=shape.log: "BROKEN" in log.read_text(), 20, "the loss of the connection")
                assert "connection is lost" in shape.lines()[-1]
            else:
                shape.wait_steps(shape.steps() + 5)


def test_rm_takes_the_packet_filter_of_a_job_that_was_not_restored(
    start_shape: Start, ckptctl: CommandLine, tmp_path: Path
) -> None:
    with start_shape("tcp_outside") as shape:
        shape.wait_steps(5)
        folder = saved(shape, ckptctl)
        logs = shutil.copytree(folder / "logs", tmp_path / "logs")
        assert packet_filters(logs), "the peer outside waits behind it"
        ckptctl("rm", folder.name, "--force").check()
        assert not packet_filters(logs)


def test_rm_takes_logs_and_keeps_what_is_the_user_s(counting: Shape, ckptctl: CommandLine) -> None:
    folder = Path(ckptctl.json("dump", "--pid", str(counting.pid), "--leave-running")["result"]["folder"])
    counting.wait_steps(counting.steps() + 5)
    counting.job.kill()
    (rolled,) = ckptctl.json("restore", "latest")["result"]["rolled_back"]
    removed = ckptctl("rm", folder.name, "--force").check()
    tails = Path(rolled["tail"]).parents[1]
    assert str(tails) in removed.stdout
    assert Path(rolled["tail"]).is_file()
    assert sorted(folder.parent.iterdir()) == [tails]
    assert_goes_on(counting)
    assert_nothing_is_left(ckptctl)
