from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ckptctl.errors import ExitStatus
from ckptctl.interrupt import Interrupted, Never
from ckptctl.process.identity import ProcessId
from ckptctl.store import codec, locks
from ckptctl.store.layout import Store
from ckptctl.store.locks import Intent, Locked, Want, run_lock, store_lock, tree_lock
from ckptctl.store.owner import Liveness, Owner


def tree(folder: Path, owner: Owner, *pids: int, wait_s: float = 0) -> AbstractContextManager[None]:
    return tree_lock(folder, [ProcessId(pid, 7) for pid in pids], owner, wait_s=wait_s, interrupt=Never())


def lock_files(folder: Path) -> list[Path]:
    return list(folder.glob("*.json"))


@pytest.fixture
def dead(owner: Owner) -> Owner:
    """An owner whose process has ended."""
    process = subprocess.Popen(["sleep", "60"])
    started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    process.kill()
    process.wait()
    return dataclasses.replace(owner, pid=process.pid, start_ticks=started, command="ckptctl dump --pid 99")


@pytest.fixture
def other(owner: Owner) -> Iterator[Owner]:
    """Another owner that lives."""
    process = subprocess.Popen(["sleep", "60"])
    started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    yield dataclasses.replace(owner, pid=process.pid, start_ticks=started, command="ckptctl dump --pid 99")
    process.kill()
    process.wait()


def leave(folder: Path, owner: Owner, *wants: Want) -> Path:
    """The lock file that a ckptctl which was killed leaves."""
    held = locks.hold(folder, wants, owner, wait_s=0, interrupt=Never())
    held.__enter__()
    (path,) = lock_files(folder)
    kept = path.read_bytes()
    held.__exit__(None, None, None)
    path.write_bytes(kept)
    return path


PROCESS_5 = Want("process:5:7", Intent.EXCLUSIVE)


def test_trees_that_overlap_exclude_each_other(tmp_path: Path, owner: Owner, other: Owner) -> None:
    with tree(tmp_path, other, 1, 2, 3):
        with tree(tmp_path, owner, 4, 5):
            pass
        with pytest.raises(
            Locked, match=rf"process {other.pid} on .*`ckptctl dump --pid 99`.*since 2026-11-20"
        ) as caught:
            with tree(tmp_path, owner, 3, 4):
                raise AssertionError("both hold it")
    assert caught.value.exit_status is ExitStatus.LOCKED
    with tree(tmp_path, owner, 3, 4):
        assert len(lock_files(tmp_path)) == 1
    assert lock_files(tmp_path) == []


def test_the_same_pid_of_another_time_is_another_process(tmp_path: Path, owner: Owner) -> None:
    with tree(tmp_path, owner, 1):
        with tree_lock(tmp_path, [ProcessId(1, 8)], owner, wait_s=0, interrupt=Never()):
            assert len(lock_files(tmp_path)) == 2


READ, APPEND, EXCLUSIVE = Intent.READ, Intent.APPEND, Intent.EXCLUSIVE


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (READ, READ, True),
        (READ, APPEND, True),
        (APPEND, APPEND, True),
        (READ, EXCLUSIVE, False),
        (APPEND, EXCLUSIVE, False),
        (EXCLUSIVE, EXCLUSIVE, False),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_intents(store: Store, owner: Owner, first: Intent, second: Intent, together: bool, swap: bool) -> None:
    if swap:
        first, second = second, first
    with run_lock(store, "a", first, owner, wait_s=0, interrupt=Never()):
        with run_lock(store, "b", EXCLUSIVE, owner, wait_s=0, interrupt=Never()):
            pass
        try:
            with run_lock(store, "a", second, owner, wait_s=0, interrupt=Never()):
                assert together
        except Locked:
            assert not together


def test_the_whole_store_excludes_its_runs(store: Store, owner: Owner) -> None:
    with store_lock(store, EXCLUSIVE, owner, wait_s=0, interrupt=Never()):
        with pytest.raises(Locked), run_lock(store, "a", READ, owner, wait_s=0, interrupt=Never()):
            pass
    with run_lock(store, "a", EXCLUSIVE, owner, wait_s=0, interrupt=Never()):
        with pytest.raises(Locked), store_lock(store, EXCLUSIVE, owner, wait_s=0, interrupt=Never()):
            pass
        with store_lock(store, READ, owner, wait_s=0, interrupt=Never()):
            pass


def test_waiting_ends_when_the_lock_is_released(tmp_path: Path, owner: Owner) -> None:
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with tree(tmp_path, owner, 1):
            holds.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    threading.Timer(0.3, release.set).start()
    began = time.monotonic()
    with tree(tmp_path, owner, 1, wait_s=10):
        waited = time.monotonic() - began
    thread.join()
    assert 0.25 < waited < 5


def test_waiting_ends_after_its_time(tmp_path: Path, owner: Owner) -> None:
    with tree(tmp_path, owner, 1):
        began = time.monotonic()
        with pytest.raises(Locked), tree(tmp_path, owner, 1, wait_s=0.3):
            pass
        assert 0.25 < time.monotonic() - began < 5


def test_waiting_can_be_interrupted(tmp_path: Path, owner: Owner) -> None:
    class AfterTwo:
        left = 2

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Interrupted("Stopped by SIGINT.")

    with tree(tmp_path, owner, 1):
        with pytest.raises(Interrupted):
            with tree_lock(tmp_path, [ProcessId(1, 7)], owner, wait_s=60, interrupt=AfterTwo()):
                raise AssertionError("both hold it")


def test_what_a_dead_process_left_is_removed(tmp_path: Path, owner: Owner, dead: Owner) -> None:
    left = leave(tmp_path, dead, PROCESS_5)
    assert dead.liveness(owner) is Liveness.DEAD
    with tree(tmp_path, owner, 5):
        assert left not in lock_files(tmp_path)


def test_what_was_left_before_the_machine_started_again_is_removed(tmp_path: Path, owner: Owner) -> None:
    left = leave(tmp_path, dataclasses.replace(owner, boot_id="another"), PROCESS_5)
    with tree(tmp_path, owner, 5):
        assert not left.exists()


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "node-2"},
        {"host": "node-2", "boot_id": "another"},
        {"machine_id": "another", "boot_id": "another"},
        {"pid_namespace": "pid:[1]", "pid": 4194304},
    ],
)
def test_what_cannot_be_seen_from_here_is_never_removed(
    tmp_path: Path, owner: Owner, elsewhere: dict[str, str]
) -> None:
    left = leave(tmp_path, dataclasses.replace(owner, **elsewhere), PROCESS_5)
    with pytest.raises(Locked) as caught, tree(tmp_path, owner, 5):
        pass
    assert left.exists()
    assert str(left) in (caught.value.hint or "")


@pytest.mark.parametrize("contents", [b"", b"{", b"{}", b"[1]", b'{"owner": 1, "wants": []}'])
def test_a_lock_that_cannot_be_read_is_in_the_way(tmp_path: Path, owner: Owner, contents: bytes) -> None:
    (tmp_path / "1-00.json").write_bytes(contents)
    with pytest.raises(Locked, match=r"1-00\.json cannot be read") as caught, tree(tmp_path, owner, 5):
        pass
    assert "remove it" in (caught.value.hint or "")
    assert [path.name for path in lock_files(tmp_path)] == ["1-00.json"]


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path, owner: Owner) -> None:
    with pytest.raises(KeyError), tree(tmp_path, owner, 5):
        raise KeyError
    assert lock_files(tmp_path) == []


_CONTENDER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from ckptctl.interrupt import Never
from ckptctl.process.identity import ProcessId
from ckptctl.store.locks import tree_lock
from ckptctl.store.owner import this_owner
folder, shared, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
owner = this_owner("contender", datetime.now(UTC))
for _ in range(rounds):
    with tree_lock(folder, [ProcessId(5, 7)], owner, wait_s=60, interrupt=Never()):
        value = int(shared.read_text())
        time.sleep(0.002)
        shared.write_text(str(value + 1))
"""


def test_never_two_at_once_in_several_processes(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_text("0")
    argv = [sys.executable, "-c", _CONTENDER, str(tmp_path / "locks"), str(shared), "10"]
    processes = [subprocess.Popen(argv) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert shared.read_text() == "30"
    assert lock_files(tmp_path / "locks") == []


def test_lock_files_are_private_and_say_who(tmp_path: Path, owner: Owner) -> None:
    with tree(tmp_path, owner, 5):
        (path,) = lock_files(tmp_path)
        assert path.stat().st_mode & 0o777 == 0o600
        raw = codec.loads(path.read_bytes())
    assert raw["owner"] == codec.encode(owner)
    assert owner.pid == os.getpid()
    assert owner.liveness(owner) is Liveness.ALIVE
