"""What is read of real trees: each fact that preflight, the options and the manifest stand on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ckptctl.process.files import FileKind, LockKind
from ckptctl.process.identity import NoSuchProcess, identify
from ckptctl.process.member import Seccomp, State, read_environment
from ckptctl.process.outside import Wanted
from ckptctl.process.sockets import SocketType, TcpState
from ckptctl.process.tree import Tree, descendants, read_tree
from support import Jobs, python, wait_for
from support.shapes import started


def kinds(tree: Tree) -> set[FileKind]:
    return {file.kind for _, file in tree.files()}


def test_the_root_comes_first_and_parents_before_children(start_job: Jobs) -> None:
    job = start_job(["sh", "-c", "sh -c 'sleep 60 & sleep 60' & wait"])
    wait_for(lambda: len(job.processes()) == 4, 10, "four processes")
    tree = read_tree(job.pid)
    assert tree.root.id == identify(job.pid)
    assert len(tree.processes) == 4
    seen: set[int] = set()
    for process in tree.processes:
        assert not seen or process.parent_pid in seen
        seen.add(process.pid)
    assert tree.ids == descendants(tree.root.id)


def test_a_process_is_described(start_job: Jobs) -> None:
    job = start_job(["sleep", "60"], environment={"SECRET": "value=1"})
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    root = read_tree(job.pid).root
    assert root.command_line == ("sleep", "60")
    assert root.name == "sleep"
    assert root.executable == os.path.realpath("/bin/sleep")
    assert root.cwd is not None
    assert (root.cwd.path, root.cwd.deleted) == (str(job.folder), False)
    assert root.leads_session
    assert root.leads_group
    assert root.terminal == 0
    assert root.parent_pid == os.getpid()
    assert root.identity.user_ids == (os.geteuid(),) * 4
    assert root.namespace_pids[-1] == job.pid
    assert "SECRET" in root.environment_names
    assert read_environment(job.pid)["SECRET"] == "value=1"
    assert [thread.tid for thread in root.threads] == [job.pid]
    assert not root.hidden


def test_memory_is_estimated(start_job: Jobs) -> None:
    with started(start_job, "memory", "--mib", "64") as shape:
        tree = read_tree(shape.pid)
    memory = tree.root.memory
    assert 64 << 20 < memory.anonymous_bytes < 96 << 20
    assert memory.resident_bytes >= memory.anonymous_bytes
    assert 64 << 20 < tree.estimated_bytes < 100 << 20


def test_shared_and_deleted_memory_counts_once(start_job: Jobs) -> None:
    with started(start_job, "deleted_file", "--mib", "32") as shape:
        tree = read_tree(shape.pid)
    private = sum(process.memory.anonymous_bytes for process in tree.processes)
    assert 32 << 20 <= tree.estimated_bytes - private < 34 << 20
    code = (
        "import mmap, os, time\n"
        "area = mmap.mmap(-1, 16 << 20); area[:] = bytes([1]) * len(area)\n"
        "[os.fork() for _ in range(2)]\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    job = start_job(python(code))
    job.wait_for_lines(4)
    tree = read_tree(job.pid)
    assert len(tree.processes) == 4
    private = sum(process.memory.anonymous_bytes for process in tree.processes)
    assert 16 << 20 <= tree.estimated_bytes - private < 17 << 20


def test_threads_have_names_and_start_times(start_job: Jobs) -> None:
    with started(start_job, "threads", "--threads", "20") as shape:
        threads = read_tree(shape.pid).root.threads
    assert len(threads) == 21
    assert all(thread.start_ticks > 0 and thread.name for thread in threads)


def test_regular_files_carry_flags_position_and_size(start_job: Jobs) -> None:
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        files = {file.path: file for _, file in read_tree(shape.pid).files(FileKind.REGULAR)}
        log = files[str(shape.log)]
        assert log.appends
        assert log.writable
        assert not log.readable
        assert not log.deleted
        assert 0 < log.position <= log.size_bytes <= shape.log.stat().st_size
        stdout = files[str(shape.job.stdout)]
        assert not stdout.appends


def test_deleted_files_are_told_from_those_with_another_name(start_job: Jobs) -> None:
    with started(start_job, "renamed_file") as shape:
        files = [file for _, file in read_tree(shape.pid).files(FileKind.REGULAR) if file.deleted]
    assert sorted((Path(file.path).name, file.links) for file in files) == [("file", 0), ("log.first", 1)]


def test_a_file_whose_real_name_ends_like_a_deleted_one(start_job: Jobs) -> None:
    job = start_job(["sh", "-c", "exec 3>'x (deleted)'; sleep 60"])
    wait_for(lambda: (job.folder / "x (deleted)").exists(), 10, "the file")
    files = {Path(file.path).name: file for _, file in read_tree(job.pid).files(FileKind.REGULAR)}
    assert not files["x (deleted)"].deleted


@pytest.mark.parametrize(
    ("shape_name", "words", "kind"),
    [
        ("io_uring", "", FileKind.IO_URING),
        ("perf_event", "", FileKind.PERF_EVENT),
        ("userfaultfd", "", FileKind.USERFAULTFD),
        ("bpf", "", FileKind.BPF),
        ("bpf", "--program", FileKind.BPF),
        ("inotify", "", FileKind.INOTIFY),
        ("fifo", "", FileKind.FIFO),
        ("device", "--path /dev/urandom", FileKind.DEVICE),
        ("device", "--path /dev/ptmx", FileKind.TERMINAL),
        ("other_descriptors", "--kind pidfd", FileKind.PIDFD),
        ("other_descriptors", "--kind fanotify", FileKind.FANOTIFY),
        ("other_descriptors", "--kind namespace", FileKind.NAMESPACE),
        ("other_descriptors", "--kind folder", FileKind.FOLDER),
        ("other_descriptors", "--kind landlock", FileKind.ANONYMOUS),
        ("shared_memory_objects", "", FileKind.MEMFD),
    ],
)
def test_descriptors_are_told_apart(shape_name: str, words: str, kind: FileKind, start_job: Jobs) -> None:
    with started(start_job, shape_name, *words.split()) as shape:
        assert kind in kinds(read_tree(shape.pid))


def test_event_descriptors_are_told_apart(start_job: Jobs) -> None:
    with started(start_job, "event_files") as shape:
        found = kinds(read_tree(shape.pid))
    assert found >= {FileKind.EVENTFD, FileKind.EPOLL, FileKind.TIMERFD, FileKind.SIGNALFD, FileKind.PIPE}


def test_a_mapped_io_uring_is_a_mapping(start_job: Jobs) -> None:
    with started(start_job, "io_uring", "--mapped") as shape:
        assert any("io_uring" in mapping.path for mapping in read_tree(shape.pid).root.mappings)


def test_the_period_of_a_timer_is_read(start_job: Jobs) -> None:
    with started(start_job, "timers_signals", "--periodic") as shape:
        (timer,) = (file for _, file in read_tree(shape.pid).files(FileKind.TIMERFD))
    assert timer.timer_interval_s == pytest.approx(0.01)


def test_pipes_inside_have_both_ends(start_job: Jobs) -> None:
    with started(start_job, "pipe_child") as shape:
        tree = read_tree(shape.pid)
    root, child = tree.pids
    assert {(pipe.readers, pipe.writers, pipe.outside) for pipe in tree.pipes} == {
        ((root,), (child,), None),
        ((child,), (root,), None),
    }
    assert not any(pipe.leaves for pipe in tree.pipes)


@pytest.mark.parametrize("words", [(), ("--read",)])
def test_pipes_that_leave_the_tree_name_who_holds_the_other_end(words: tuple[str, ...], start_job: Jobs) -> None:
    with started(start_job, "pipe_outside", *words) as shape:
        tree = read_tree(shape.pid)
        stranger = (set(shape.job.processes()) - set(tree.pids)).pop()
    (pipe,) = tree.pipes
    assert pipe.leaves
    assert (pipe.readers, pipe.writers) == (((shape.pid,), ()) if words else ((), (shape.pid,)))
    assert pipe.outside is not None
    assert pipe.outside.pid == stranger
    assert pipe.outside.comm.startswith("python")


def test_a_pipe_whose_other_end_is_closed_leads_nowhere(start_job: Jobs) -> None:
    with started(start_job, "closed_peers") as shape:
        (pipe,) = read_tree(shape.pid).pipes
    assert pipe.leaves
    assert pipe.outside is None


def test_unix_peers_inside_are_found(start_job: Jobs) -> None:
    with started(start_job, "unix_server") as shape:
        sockets = read_tree(shape.pid).sockets.unix
    listener = next(item for item in sockets if item.state is TcpState.LISTEN)
    assert listener.path == "log.socket"
    connected = [item for item in sockets if item.state is TcpState.ESTABLISHED]
    assert len(connected) == 2
    assert all(item.peer_inside for item in connected)


def test_an_abstract_name_is_marked(start_job: Jobs) -> None:
    with started(start_job, "unix_server", "--abstract") as shape:
        assert "@log" in {item.path for item in read_tree(shape.pid).sockets.unix}


def test_a_unix_peer_outside_is_named(start_job: Jobs) -> None:
    with started(start_job, "unix_outside", "--kind", "datagram", "--absolute") as shape:
        tree = read_tree(shape.pid)
        stranger = (set(shape.job.processes()) - set(tree.pids)).pop()
    (item,) = tree.sockets.unix
    assert item.type is SocketType.DATAGRAM
    assert item.peer_inside is False
    assert item.peer_path == f"{shape.log}.socket"
    assert [holder.pid for holder in tree.peers_outside] == [stranger]


def test_who_waits_to_be_accepted_is_listed(start_job: Jobs) -> None:
    with started(start_job, "unix_outside", "--kind", "unaccepted_inside") as shape:
        listener, client = sorted(read_tree(shape.pid).sockets.unix, key=lambda item: item.state, reverse=True)
    assert listener.pending_inodes == (client.inode,)
    assert (client.peer_inode, client.shut_down) == (0, False)


def test_a_closed_unix_peer_is_told_from_one_that_waits(start_job: Jobs) -> None:
    with started(start_job, "closed_peers") as shape:
        sockets = read_tree(shape.pid).sockets.unix
    (orphan,) = (item for item in sockets if item.peer_inode == 0)
    assert orphan.shut_down


@pytest.mark.parametrize(("family", "address"), [("4", "127.0.0.1"), ("6", "::1"), ("mapped", "127.0.0.1")])
def test_tcp_peers_inside_are_found(family: str, address: str, start_job: Jobs) -> None:
    with started(start_job, "tcp_server", "--family", family) as shape:
        sockets = read_tree(shape.pid).sockets.inet
    connected = [item for item in sockets if item.connected]
    assert len(connected) == 2
    assert all(item.peer_inside for item in connected)
    assert {item.remote[0] for item in connected} == {address}
    assert any(item.state is TcpState.LISTEN for item in sockets)


def test_a_tcp_peer_outside_is_told(start_job: Jobs) -> None:
    with started(start_job, "tcp_outside") as shape:
        (item,) = read_tree(shape.pid).sockets.inet
    assert item.connected
    assert not item.peer_inside
    assert item.holders == (shape.pid,)


def test_a_connection_that_was_not_accepted_is_counted(start_job: Jobs) -> None:
    with started(start_job, "tcp_unaccepted") as shape:
        sockets = {item.state: item for item in read_tree(shape.pid).sockets.inet}
    assert sockets[TcpState.LISTEN].waiting == 1
    assert sockets[TcpState.ESTABLISHED].peer_inside


def test_other_sockets_are_named_by_their_protocol(start_job: Jobs) -> None:
    with started(start_job, "netlink") as shape:
        assert [item.protocol for item in read_tree(shape.pid).sockets.other] == ["NETLINK"]


def test_all_kinds_of_locks_are_found(start_job: Jobs) -> None:
    with started(start_job, "file_locks") as shape:
        locks = {lock.kind: lock for lock in read_tree(shape.pid).locks}
    assert set(locks) == {LockKind.FLOCK, LockKind.POSIX, LockKind.OPEN_FILE}
    assert locks[LockKind.FLOCK].path.endswith("log.flock")
    assert locks[LockKind.POSIX].owner_pid == shape.pid
    assert all(lock.access == "WRITE" for lock in locks.values())


def test_a_lock_that_is_shared_with_a_stranger_is_found(start_job: Jobs) -> None:
    with started(start_job, "flock_outside") as shape:
        tree = read_tree(shape.pid)
        stranger = (set(shape.job.processes()) - set(tree.pids)).pop()
    (holder,) = tree.locks_outside
    assert (holder.pid, holder.wanted) == (stranger, Wanted(f"{shape.log}.lock", info="FLOCK"))


def test_a_process_that_only_opened_the_same_file_shares_no_lock(start_job: Jobs) -> None:
    with started(start_job, "file_locks") as shape, open(f"{shape.log}.flock"):
        assert read_tree(shape.pid).locks_outside == ()


def test_a_terminal_and_its_master_inside(start_job: Jobs) -> None:
    with started(start_job, "terminal", "--master", "inside") as shape:
        tree = read_tree(shape.pid)
    (terminal,) = tree.terminals
    assert terminal.master_inside
    assert terminal.index is not None
    assert terminal.path == f"/dev/pts/{terminal.index}"
    assert terminal.holders == terminal.controlled == (tree.pids[1],)


def test_a_terminal_served_from_outside(start_job: Jobs) -> None:
    with started(start_job, "terminal", "--master", "outside") as shape:
        (terminal,) = read_tree(shape.pid).terminals
    assert not terminal.master_inside
    assert terminal.holders == (shape.pid,)


def test_a_controlling_terminal_counts_though_it_is_not_open() -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", "exec sleep 60 <&- >&- 2>&-"])
    try:
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", 10, "sleep")
        (terminal,) = read_tree(pid).terminals
        assert (terminal.holders, terminal.controlled) == ((), (pid,))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


def test_zombies_belong_to_the_tree(start_job: Jobs) -> None:
    with started(start_job, "zombies") as shape:
        tree = read_tree(shape.pid)
    assert [process.state for process in tree.processes[1:]] == [State.ZOMBIE, State.ZOMBIE]
    assert tree.living == (tree.root,)
    assert all(process.is_zombie and not process.hidden for process in tree.processes[1:])


def test_sessions_groups_and_stopped_processes(start_job: Jobs) -> None:
    with started(start_job, "sessions") as shape:
        root, leader, stopped = read_tree(shape.pid).processes
    assert leader.leads_session
    assert not stopped.leads_session
    assert stopped.leads_group
    assert stopped.session_id == root.pid
    assert stopped.state is State.STOPPED


def test_a_removed_working_folder_is_told(start_job: Jobs) -> None:
    with started(start_job, "deleted_folder") as shape:
        cwd = read_tree(shape.pid).root.cwd
    assert cwd is not None
    assert cwd.deleted
    assert cwd.path == f"{shape.log}.cwd"


def test_seccomp_and_no_new_privileges(start_job: Jobs) -> None:
    with started(start_job, "seccomp") as shape:
        root = read_tree(shape.pid).root
    assert root.seccomp is Seccomp.FILTER
    assert root.no_new_privileges


def test_a_tracer_is_named(start_job: Jobs) -> None:
    with started(start_job, "traced") as shape:
        tree = read_tree(shape.pid)
        stranger = (set(shape.job.processes()) - set(tree.pids)).pop()
    assert tree.root.tracer_pid == stranger


def test_sysv_shared_memory_is_a_mapping(start_job: Jobs) -> None:
    with started(start_job, "sysv_shm") as shape:
        (mapping,) = (item for item in read_tree(shape.pid).root.mappings if item.path.startswith("/SYSV"))
    assert mapping.shared
    assert mapping.length_bytes == 1 << 20


def test_namespaces_that_are_not_ours_are_told(start_job: Jobs) -> None:
    with started(start_job, "namespace", "--kind", "uts") as shape:
        tree = read_tree(shape.pid)
    assert [item.kind for item in tree.foreign_namespaces(tree.root)] == ["uts"]


def test_a_process_that_is_not_there() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(NoSuchProcess):
        read_tree(child.pid)


def test_a_tree_that_never_holds_still_can_be_read(start_job: Jobs) -> None:
    job = start_job(["sh", "-c", "while :; do /bin/true; done"])
    for _ in range(20):
        with suppress(NoSuchProcess):
            assert read_tree(job.pid).root.pid == job.pid


def test_twenty_processes_with_five_hundred_threads_take_less_than_a_second(start_job: Jobs) -> None:
    code = (
        "import os, sys, threading, time\n"
        "for _ in range(19):\n"
        "    if os.fork() == 0: break\n"
        "[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(24)]\n"
        "pipes = [os.pipe() for _ in range(20)]\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    job = start_job([sys.executable, "-c", code])
    job.wait_for_lines(20)
    began = time.perf_counter()
    tree = read_tree(job.pid)
    seconds = time.perf_counter() - began
    assert len(tree.processes) == 20
    assert len(tree.thread_ids) == 500
    assert seconds < 1
