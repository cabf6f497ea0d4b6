"""What check tells to do about a snapshot that cannot be restored is done; then it is content, and restore too."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptctl.store import manifest_json
from support import CommandLine, Jobs, wait_for
from support.jobs import state
from support.shapes import Shape, started
from support.tmpfs import tmpfs

pytestmark = pytest.mark.requires_criu


@pytest.fixture
def counting(start_job: Jobs) -> Iterator[Shape]:
    """A job that counts into its log, which it appends to."""
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        yield shape


def against(ckptctl: CommandLine, *words: str) -> dict[str, Any]:
    """What stands in the way of the restore, by check; the exit status of check agrees."""
    ended = ckptctl("check", "--snapshot", "latest", *words, "--json")
    found = {one["check"]: one for one in ended.document["result"]["findings"] if one["level"] == "error"}
    ended.check(5 if found else 0)
    return found


def goes_on(ckptctl: CommandLine, shape: Shape, at_the_dump: int, *words: str) -> None:
    """Restore it: it goes on where it was."""
    assert against(ckptctl, *words) == {}
    ckptctl("restore", "latest", *words).check()
    shape.wait_steps(at_the_dump + 5)


def dumped(ckptctl: CommandLine, shape: Shape) -> int:
    """The steps at the dump, which ends the job."""
    ckptctl("dump", "--pid", str(shape.pid)).check()
    return shape.steps()


def test_a_folder_is_put_back(counting: Shape, ckptctl: CommandLine) -> None:
    at_the_dump, folder = dumped(ckptctl, counting), counting.job.folder
    away = folder.rename(folder.with_name("away"))
    found = against(ckptctl)
    assert set(found) == {"working-folder", "file-missing"}
    assert f"mkdir -p {folder}" in found["working-folder"]["remedy"]
    ckptctl("restore", "latest").check(5)
    subprocess.run(["mkdir", "-p", folder], check=True)
    assert set(against(ckptctl)) == {"file-missing"}
    shutil.copytree(away, folder, dirs_exist_ok=True)
    goes_on(ckptctl, counting, at_the_dump)


def test_a_file_is_put_back(counting: Shape, ckptctl: CommandLine) -> None:
    at_the_dump = dumped(ckptctl, counting)
    away = counting.log.rename(counting.log.with_suffix(".away"))
    counting.log.mkdir()
    found = against(ckptctl)
    assert "Put the file back" in found.pop("file-replaced")["remedy"]
    assert set(found) <= {"file-mode"}
    ckptctl("restore", "latest").check(5)
    counting.log.rmdir()
    away.rename(counting.log)
    goes_on(ckptctl, counting, at_the_dump)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_log_that_was_cut_is_put_back_or_accepted(counting: Shape, ckptctl: CommandLine, accepted: bool) -> None:
    at_the_dump = dumped(ckptctl, counting)
    text = counting.log.read_text()
    counting.log.write_text("")
    found = against(ckptctl)
    assert set(found) == {"file-shrunk"}
    ckptctl("restore", "latest").check(5)
    if not accepted:
        counting.log.write_text(text)
        goes_on(ckptctl, counting, at_the_dump)
        return
    assert "--files keep" in found["file-shrunk"]["remedy"]
    assert against(ckptctl, "--files", "keep") == {}
    ckptctl("restore", "latest", "--files", "keep").check()
    wait_for(lambda: len(counting.lines()) > 3, 60, "lines after the cut")


@pytest.mark.parametrize("ended", [True, False])
def test_who_writes_to_the_log_is_ended_or_stopped(counting: Shape, ckptctl: CommandLine, ended: bool) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    at_the_dump = counting.steps()
    counting.wait_steps(at_the_dump + 3)
    found = against(ckptctl, "--new-pid-namespace")
    assert set(found) == {"file-in-use"}
    if ended:
        counting.job.signal(signal.SIGKILL)
        counting.job.wait_gone()
        goes_on(ckptctl, counting, at_the_dump - 5)
        return
    stop = re.search(r"kill -STOP \d+", found["file-in-use"]["remedy"])
    assert stop is not None
    subprocess.run(stop[0].split(), check=True)
    assert against(ckptctl, "--new-pid-namespace", "--files", "keep") == {}
    before = len(counting.lines())
    report = ckptctl.json("restore", "latest", "--new-pid-namespace", "--files", "keep")["result"]
    wait_for(lambda: len(counting.lines()) > before + 3, 60, "lines of the restored job")
    assert state(counting.pid) == "T"
    assert state(report["pid"]) in "RS"
    os.kill(counting.pid, signal.SIGKILL)


def test_who_has_the_port_is_found_and_ended(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "tcp_server") as shape:
        shape.wait_steps(3)
        folder = Path(ckptctl.json("dump", "--pid", str(shape.pid))["result"]["folder"])
        at_the_dump = shape.steps()
        wanted = manifest_json.read(folder / "manifest.json").ports[0].port
        with socket.create_server(("127.0.0.1", wanted)):
            found = against(ckptctl)
            assert set(found) == {"ports"}
            words = shlex.split(found["ports"]["remedy"].partition("end it: ")[2])
            if shutil.which(words[0]):
                said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                assert f"pid={os.getpid()}," in said
            ckptctl("restore", "latest").check(5)
        goes_on(ckptctl, shape, at_the_dump)


def test_a_damaged_snapshot_gives_way_to_the_one_before(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    newer = ckptctl.json("dump", "--pid", str(counting.pid))["result"]["folder"]
    subprocess.run(["sh", "-c", f"truncate --size=-1 {shlex.quote(newer)}/images/pages.blocks"], check=True)
    (found,) = against(ckptctl).values()
    assert found["check"] == "damage"
    assert "`backup`" in found["remedy"]
    ckptctl("check", "--snapshot", "backup").check()
    ckptctl("restore", "backup").check()
    counting.wait_steps(3)


def test_a_tmpfs_is_mounted_again(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    """What the job shared in memory is in the snapshot, and goes to memory again."""
    script = (
        "import mmap, sys, time\n"
        "with open(sys.argv[1], 'w+b') as file:\n"
        "    file.truncate(4096)\n"
        "    shared = mmap.mmap(file.fileno(), 4096)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    assert n == 1 or shared[:8] == (n - 1).to_bytes(8, 'big')\n"
        "    shared[:8] = n.to_bytes(8, 'big')\n"
        "    print(n, flush=True)\n"
        "    time.sleep(0.05)\n"
    )
    folder = tmp_path / "memory"
    with tmpfs(folder, "size=8m"):
        job = start_job([sys.executable, "-c", script, folder / "shared"])
        job.wait_for_lines(5)
        ckptctl("dump", "--pid", str(job.pid)).check()
    lines = len(job.lines())
    found = against(ckptctl)
    assert f"Mount a tmpfs at {folder}" in found["file-not-in-memory"]["remedy"]
    ckptctl("restore", "latest").check(5)
    with tmpfs(folder, "size=8m"):
        assert against(ckptctl) == {}
        ckptctl("restore", "latest").check()
        job.wait_for_lines(lines + 5)
        job.kill()
