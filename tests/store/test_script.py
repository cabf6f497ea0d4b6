"""restore.sh: a shell understands it whatever the job is called, and criu gets the words that it must get."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl.store import script
from ckptctl.store.manifest import (
    CriuOption,
    CriuRecord,
    Direction,
    End,
    EndKind,
    FileUser,
    KeptFile,
    Manifest,
    OpenFile,
    ProcessRecord,
    Tree,
)
from support.manifests import make_manifest, make_process
from support.waiting import wait_for

# Free ids: the kernel's default limit is below them where it is 32768, and the tests look before they rely on it.
FREE = 4_000_000
HOSTILE = [
    "a b",
    "it's",
    'quo"te',
    "line\nbreak",
    "; touch HARM",
    "$(touch HARM)",
    "`touch HARM`",
    "-rf",
    "*",
    "\\",
    "}",
    os.fsdecode(b"\xff\xfe"),
    "\n touch HARM",
]

_FAKE_CRIU = """#!/bin/sh
# Writes down its words, one on each line, and the pid file.
printf '%s\\n' "$@" >"$(dirname "$0")/words"
while [ $# -gt 0 ]; do
    [ "$1" = --pidfile ] && echo 4711 >"$2"
    shift
done
exit "$(cat "$(dirname "$0")/status")"
"""


@pytest.fixture
def fake_criu(tmp_path: Path) -> Path:
    program = tmp_path / "bin }' dir" / "criu"
    program.parent.mkdir()
    program.write_text(_FAKE_CRIU)
    program.chmod(0o700)
    (program.parent / "status").write_text("0")
    return program


def process(**changes: object) -> ProcessRecord:
    return make_process(FREE, threads=(FREE, FREE + 1), **changes)


def harmless(program: Path | str, /, **changes: object) -> Manifest:
    """A manifest whose script finds nothing in the way."""
    fields: dict[str, object] = {
        "tree": Tree(FREE, (process(),)),
        "criu": CriuRecord(str(program), "4.2.1", (CriuOption("--tcp-close", None, "why"),)),
        "open_files": (),
        "kept_files": (),
        "ends": (),
    }
    return make_manifest(**{**fields, **changes})


def run(path: Path, *arguments: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    argv = [shell, path, *arguments]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)


def written(folder: Path, manifest: Manifest) -> Path:
    folder.mkdir(exist_ok=True)
    script.write(folder / "restore.sh", manifest)
    return folder / "restore.sh"


def words(criu: Path) -> list[str]:
    return (criu.parent / "words").read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_criu_gets_the_folders_and_the_options_of_a_restore(tmp_path: Path, fake_criu: Path, shell: str) -> None:
    options = (
        CriuOption("--tcp-close", None, "why"),
        CriuOption("--ghost-limit", "200M", "why"),
        CriuOption("--network-lock", "skip", "why", on_restore=False),
    )
    manifest = harmless(fake_criu, criu=CriuRecord(str(fake_criu), "4.2.1", options))
    path = written(tmp_path / "snap shot", manifest)
    (tmp_path / "work").mkdir()
    done = run(path, str(tmp_path / "work"), shell=shell)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Restored: process 4711" in done.stderr
    assert "not compared with their digests" in done.stderr
    work = str(tmp_path / "work")
    assert words(fake_criu) == [
        *("restore", "--no-default-config", "--images-dir", str(tmp_path / "snap shot" / "images")),
        *("--work-dir", work, "--log-file", "restore.log", "-v4", "--libdir", f"{work}/no-plugins"),
        *("--restore-detached", "--pidfile", f"{work}/restore.pid", "--tcp-close", "--ghost-limit", "200M"),
    ]


def test_another_criu_can_be_named(tmp_path: Path, fake_criu: Path) -> None:
    path = written(tmp_path / "snapshot", harmless("/nowhere/criu"))
    assert run(path).returncode == 1
    environment = {**os.environ, "CKPTCTL_CRIU": str(fake_criu), "TMPDIR": str(tmp_path)}
    assert subprocess.run(["sh", path], env=environment, stderr=subprocess.DEVNULL).returncode == 0


def test_a_failure_of_criu_is_a_failure_of_the_script(tmp_path: Path, fake_criu: Path) -> None:
    (fake_criu.parent / "status").write_text("1")
    done = run(written(tmp_path / "snapshot", harmless(fake_criu)))
    assert done.returncode == 1
    assert "criu failed; its log is " in done.stderr


def test_ids_in_use_are_named_before_criu_runs(tmp_path: Path, fake_criu: Path) -> None:
    pid = os.getpid()
    manifest = harmless(fake_criu, tree=Tree(pid, (make_process(pid, threads=(pid, FREE)),)))
    done = run(written(tmp_path / "snapshot", manifest))
    assert done.returncode == 1
    assert f"The process id {pid} is in use: " in done.stderr
    assert str(FREE) not in done.stderr
    assert not (fake_criu.parent / "words").exists()


def test_a_process_that_has_ended_is_told_from_one_that_runs(tmp_path: Path, fake_criu: Path) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    tree = Tree(ended.pid, (make_process(ended.pid, threads=(ended.pid,)),))
    path = written(tmp_path / "snapshot", harmless(fake_criu, tree=tree))
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(["sh", path], env=environment, capture_output=True, text=True)
    ended.wait()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{ended.pid} is in use: a process that has ended" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def opened(path: Path | str, size: int, **changes: object) -> OpenFile:
    fields = {"flags": 0o1, "position_bytes": 0, "mode": 0o100644, "append": False, "deleted": False, **changes}
    return OpenFile(str(path), (FileUser(FREE, 3),), size_bytes=size, **fields)  # type: ignore[arg-type]


def test_files_of_another_size_are_named_before_criu_runs(tmp_path: Path, fake_criu: Path) -> None:
    (tmp_path / "same").write_bytes(b"12345")
    (tmp_path / "grown").write_bytes(b"1234567")
    (tmp_path / "shrunk").write_bytes(b"123")
    files = (
        opened(tmp_path / "same", 5),
        opened(tmp_path / "grown", 5),
        opened(tmp_path / "shrunk", 5),
        opened(tmp_path / "missing", 5),
        opened(tmp_path / "deleted", 5, deleted=True),
    )
    done = run(written(tmp_path / "snapshot", harmless(fake_criu, open_files=files)))
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len(said) == 3
    assert f"{tmp_path}/grown must have 5 bytes; it has grown to 7." in said[0]
    assert "truncate -s 5" in said[0]
    assert f"{tmp_path}/shrunk must have 5 bytes; it has only 3." in said[1]
    assert f"{tmp_path}/missing must have 5 bytes; it is missing." in said[2]
    assert "truncate" not in said[1] + said[2]
    assert (tmp_path / "grown").read_bytes() == b"1234567"
    assert not (fake_criu.parent / "words").exists()


def test_files_in_memory_are_put_back_where_they_are_gone(tmp_path: Path, fake_criu: Path) -> None:
    memory = tmp_path / "shm" / "a 'b"
    kept = (KeptFile(str(memory), "kept-000.bin", 0o640, os.geteuid(), os.getegid()),)
    path = written(tmp_path / "snapshot", harmless(fake_criu, kept_files=kept, open_files=(opened(memory, 5),)))
    (tmp_path / "snapshot" / "images").mkdir()
    (tmp_path / "snapshot" / "images" / "kept-000.bin").write_bytes(b"12345")
    assert run(path).returncode == 0
    assert memory.read_bytes() == b"12345"
    assert memory.stat().st_mode & 0o777 == 0o640
    assert run(path).returncode == 0
    memory.write_bytes(b"54321")
    done = run(path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{memory} is not as it was at the dump.")
    assert memory.read_bytes() == b"54321"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_names(tmp_path: Path, fake_criu: Path, text: str) -> None:
    manifest = harmless(
        fake_criu,
        tree=Tree(FREE, (process(cmdline=(text, text), cwd=text, comm=text),)),
        criu=CriuRecord(str(fake_criu), text, (CriuOption("--external", text, text), CriuOption(f"-{text}", None, ""))),
        open_files=(opened(text, 0),),
        ends=(End(EndKind.PIPE, text, 5, 1, Direction.WRITE, text),),
        note=text,
    )
    path = written(tmp_path / "snapshot", manifest)
    (tmp_path / text).touch()
    done = subprocess.run(["sh", path], cwd=tmp_path, env={**os.environ, "TMPDIR": "/tmp"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("HARM"))
    joined = "\n".join(words(fake_criu))
    assert f"\n--inherit-fd\nfd[1]:{text}\n--external\n{text}\n-{text}" in joined


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_a_shell_understands_every_script(tmp_path: Path, text: str) -> None:
    manifest = harmless(
        text or "criu",
        tree=Tree(FREE, (process(cmdline=(text,), cwd=text),)),
        open_files=(opened(text, 0),),
        ends=(End(EndKind.PIPE, text, 5, 1, Direction.WRITE, text),),
    )
    path = written(tmp_path / "snapshot", manifest)
    assert subprocess.run(["sh", "-n", path]).returncode == 0


def test_a_tree_of_thousands_of_threads_is_no_trouble(tmp_path: Path, fake_criu: Path) -> None:
    tree = Tree(FREE, (make_process(FREE, threads=tuple(range(FREE, FREE + 5000))),))
    assert run(written(tmp_path / "snapshot", harmless(fake_criu, tree=tree))).returncode == 0


_JOB = "import time\nn = 0\nwhile True:\n    print(n, flush=True)\n    n += 1\n    time.sleep(0.05)\n"


@pytest.fixture
def piped_job() -> Iterator[subprocess.Popen[str]]:
    """A job that counts into a pipe of ours."""
    job = subprocess.Popen(
        [sys.executable, "-c", _JOB],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    yield job
    job.kill()
    job.wait()


@pytest.mark.requires_criu
def test_a_real_job_comes_back_by_its_script(tmp_path: Path, criu: Path, piped_job: subprocess.Popen[str]) -> None:
    assert piped_job.stdout is not None
    seen = [piped_job.stdout.readline() for _ in range(3)]
    pipe = Path(f"/proc/{piped_job.pid}/fd/1").readlink()
    (tmp_path / "images").mkdir()
    words = ["-t", str(piped_job.pid), "-D", tmp_path / "images", "-o", "dump.log", "--libdir", tmp_path]
    subprocess.run([criu, "dump", *words], check=True)
    piped_job.wait()
    seen += piped_job.stdout.readlines()
    manifest = harmless(
        criu,
        tree=Tree(piped_job.pid, (make_process(piped_job.pid, threads=(piped_job.pid,)),)),
        criu=CriuRecord(str(criu), "4.2.1", ()),
        ends=(End(EndKind.PIPE, str(pipe), piped_job.pid, 1, Direction.WRITE, "the test"),),
    )
    path = written(tmp_path, manifest)
    (tmp_path / "work").mkdir()
    try:
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(["sh", path, tmp_path / "work"], stdout=out, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len((tmp_path / "out").read_text().splitlines()) > 3, 30, "output of the restored job")
    finally:
        _kill(piped_job.pid)
    numbers = [int(line) for line in [*seen, *(tmp_path / "out").read_text().split()]]
    assert numbers == list(range(len(numbers)))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
