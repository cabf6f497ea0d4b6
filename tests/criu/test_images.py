"""Images of real dumps, whole and damaged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptctl.criu.container import ImageDamaged
from ckptctl.criu.dump import DumpRequest, Leave, dump
from ckptctl.criu.images import list_image_files, read_dump_stats, read_images, read_restore_stats
from ckptctl.criu.program import find
from ckptctl.criu.records import Images, RegularFile, RemapKind, SocketState, TaskState
from ckptctl.interrupt import Never
from support import Jobs
from support.jobs import Job, python

pytestmark = pytest.mark.requires_criu

HOLDER = """
import os, socket, sys, threading, time
truncated = open("with space.log", "w"); truncated.write("hello\\n"); truncated.flush()
appended = open("append.log", "a"); appended.write("x"); appended.flush()
deleted = open("gone", "w+"); deleted.write("abc"); deleted.flush(); os.unlink("gone")
odd = open(b"odd \\xff", "w")
reading, writing = os.pipe()
alone, lost = os.pipe(); os.close(lost)
os.mkfifo("fifo"); fifo = os.open("fifo", os.O_RDWR)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
left, right = socket.socketpair()
threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
if os.fork() == 0:
    time.sleep(1e6)
if os.fork() == 0:
    os._exit(3)
print(server.getsockname()[1], truncated.fileno(), reading, writing, alone, flush=True)
time.sleep(1e6)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """One dump of the program above: what it said of itself, what /proc said, and what criu wrote."""

    job: Job
    numbers: list[int]
    threads: set[int]
    pipe_inodes: dict[int, str]
    images: Path
    logs: Path


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    base = tmp_path_factory.mktemp("held")
    images, logs = base / "images", base / "logs"
    images.mkdir()
    logs.mkdir()
    jobs = Jobs(base / "jobs")
    try:
        job = jobs(python(HOLDER))
        numbers = [int(word) for word in job.wait_for_lines(1)[0].split()]
        threads = {int(task.name) for task in Path(f"/proc/{job.pid}/task").iterdir()}
        inodes = {fd: str(Path(f"/proc/{job.pid}/fd/{fd}").readlink()) for fd in numbers[2:]}
        options = ("--tcp-established", "--network-lock", "nftables")
        request = DumpRequest(job.pid, images, logs, options, Leave.RUNNING)
        dump(find(os.environ), request, interrupt=Never(), on_progress=lambda _: None)
        yield Held(job, numbers, threads, inodes, images, logs)
    finally:
        jobs.close()


@pytest.fixture(scope="module")
def read(held: Held) -> Images:
    return read_images(held.images)


def by_name(read: Images, name: str) -> RegularFile:
    return next(file for file in read.open_files.regular if Path(file.path).name == name)


def test_tasks(held: Held, read: Images) -> None:
    root, child, zombie = read.tasks
    assert read.root_pid == root.pid == held.job.pid
    assert (root.ppid, child.ppid, zombie.ppid) == (0, root.pid, root.pid)
    assert (root.pgid, root.sid) == (root.pid, root.pid)
    assert set(root.thread_ids) == held.threads
    assert [task.state for task in read.tasks] == [TaskState.ALIVE, TaskState.ALIVE, TaskState.DEAD]
    assert os.waitstatus_to_exitcode(zombie.exit_status) == 3
    assert zombie.thread_ids == (zombie.pid,)
    assert zombie.memory is None
    assert root.comm.startswith("python")


def test_memory_names_the_program_and_the_folder(held: Held, read: Images) -> None:
    memory = read.tasks[0].memory
    assert memory is not None
    program = read.open_files.regular_file(memory.executable_id)
    folder = read.open_files.regular_file(memory.cwd_id)
    assert program is not None
    assert program.path == str(Path(f"/proc/{held.job.pid}/exe").readlink())
    assert len(program.build_id) in (0, 40)
    assert folder is not None
    assert folder.path == str(held.job.folder)
    mapped = [read.open_files.regular_file(file_id) for file_id in memory.mapped_file_ids]
    assert any(file is not None and "libc" in file.path and file.build_id for file in mapped)


def test_regular_files(held: Held, read: Images) -> None:
    truncated = by_name(read, "with space.log")
    assert (truncated.size_bytes, truncated.position_bytes, truncated.is_append) == (6, 6, False)
    assert truncated.path == str(held.job.folder / "with space.log")
    assert {(use.pid, use.fd) for use in truncated.uses} == {
        (task.pid, held.numbers[1]) for task in read.tasks if task.memory
    }
    appended = by_name(read, "append.log")
    assert appended.is_append
    assert appended.size_bytes is None
    gone = by_name(read, "gone")
    assert gone.remap is not None
    assert gone.remap.kind is RemapKind.GHOST
    assert [(ghost.ghost_id, ghost.content_bytes) for ghost in read.ghosts] == [(gone.remap.target_id, 3)]
    assert os.fsencode(by_name(read, "odd \udcff").path).endswith(b"odd \xff")


def test_pipes(held: Held, read: Images) -> None:
    pipes = {pipe.key: pipe for pipe in read.open_files.pipes}
    _, _, reading, writing, alone = held.numbers
    assert held.pipe_inodes[reading] == held.pipe_inodes[writing]
    assert not pipes[held.pipe_inodes[reading]].is_external
    assert pipes[held.pipe_inodes[alone]] in read.open_files.external_pipes
    assert len(read.open_files.fifos) == 1
    fifo = read.open_files.regular_file(read.open_files.fifos[0].regular_file_id or 0)
    assert fifo is not None
    assert Path(fifo.path).name == "fifo"


def test_sockets(held: Held, read: Images) -> None:
    port = held.numbers[0]
    found = {(one.state, one.local_port == port, one.remote_port == port) for one in read.open_files.inet_sockets}
    assert found == {
        (SocketState.LISTEN, True, False),
        (SocketState.ESTABLISHED, True, False),
        (SocketState.ESTABLISHED, False, True),
    }
    assert {one.local_address for one in read.open_files.inet_sockets} == {"127.0.0.1"}
    left, right = read.open_files.unix_sockets
    assert (left.peer_inode, right.peer_inode) == (right.inode, left.inode)
    assert not left.is_external


def test_statistics(held: Held) -> None:
    stats = read_dump_stats(held.logs)
    assert 0 < stats.memdump_us <= stats.frozen_us < 60_000_000
    pages = sum(path.stat().st_size for path in held.images.glob("pages-*.img"))
    assert stats.pages_written * 4096 == pages
    with pytest.raises(ImageDamaged, match=r"stats-restore"):
        read_restore_stats(held.logs)


def test_every_file_is_listed(held: Held, read: Images) -> None:
    listed = {file.name: file.size_bytes for file in list_image_files(held.images)}
    assert listed == {path.name: path.stat().st_size for path in held.images.iterdir()}
    assert tuple(listed) == tuple(file.name for file in read.image_files)


@pytest.fixture(scope="module")
def small(held: Held, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images without the pages, to be damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    for path in held.images.iterdir():
        if not path.name.startswith("pages-"):
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", ["inventory", "pstree", "files", "core-{}", "mm-{}", "fs-{}", "ids-{}"])
def test_a_missing_or_cut_file_is_named(held: Held, small: Path, name: str) -> None:
    path = small / (name.format(held.job.pid) + ".img")
    whole = path.read_bytes()
    try:
        for kept in (whole[:-1], whole[:9], whole[:3], b""):
            path.write_bytes(kept)
            with pytest.raises(ImageDamaged) as caught:
                read_images(small)
            assert caught.value.details["file"] == str(path)
        path.unlink()
        with pytest.raises(ImageDamaged, match=rf"{path.name}.*missing"):
            read_images(small)
    finally:
        path.write_bytes(whole)


def test_a_length_beyond_the_file_is_damage(small: Path) -> None:
    path = small / "files.img"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:8] + b"\xff\xff\xff\xff" + whole[12:])
        with pytest.raises(ImageDamaged, match=r"files\.img is damaged at byte 8"):
            read_images(small)
    finally:
        path.write_bytes(whole)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_damage_is_read_or_named_never_worse(small: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(small.iterdir())))
    whole = path.read_bytes()
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 16)))
    middle = data.draw(st.binary(max_size=16))
    try:
        path.write_bytes(whole[:begin] + middle + whole[end:])
        read_images(small)
    except ImageDamaged as error:
        assert Path(str(error.details["file"])).parent == small
    finally:
        path.write_bytes(whole)
