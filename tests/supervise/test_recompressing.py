"""Kept snapshots that are made smaller in the background, while the job goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ckptctl.store import manifest_json
from support import CommandLine, wait_for
from support.supervised import Supervised, Supervisor, gated

pytestmark = pytest.mark.requires_criu

STEPS = 45


def counts(mib: int) -> tuple[str, ...]:
    """A job with so much memory, no two blocks of which are the same, and all of which compresses."""
    return gated(f"""
import array
numbers = array.array("Q", range({mib} << 17))
for step in range(1, {STEPS + 1}):
    numbers[step << 11] += step
    print(f"step={{step}} loss={{sum(numbers[: 1 << 17])}}", flush=True)
    wait_for_leave(step)
    time.sleep(0.01)
""")


def log() -> list[str]:
    """What it prints when nothing disturbs it."""
    total = sum(range(1 << 17))
    said = []
    for step in range(1, STEPS + 1):
        total += step
        said.append(f"step={step} loss={total}")
    return said


def compression(run: Supervised, snapshot: str) -> str:
    container = manifest_json.read(run.run.snapshot(snapshot).manifest).images.container
    assert container is not None
    return container.compression.value


def background(supervisor: Supervisor) -> int | None:
    """The pid of the ckptctl that compresses for this one."""
    pid = supervisor.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            if b"\0recompress\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


@pytest.fixture
def held(supervise: Supervised, ckptctl: CommandLine) -> Iterator[tuple[Supervisor, int]]:
    """A supervisor whose first snapshot is being compressed, which stands still with half of it written."""
    supervisor = supervise("--every", "10steps", "--recompress", "better", job=counts(128))
    supervise.save_each(supervisor, 1)
    staging = ckptctl.store / "staging"
    wait_for(lambda: list(staging.glob("*.*/images/pages.blocks")), 30, "a snapshot that is written anew")
    pid = background(supervisor)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    yield supervisor, pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_kept_snapshots_are_made_smaller_beside_the_job(supervise: Supervised, ckptctl: CommandLine) -> None:
    options = ("--every", "10steps", "--keep-last", "2")
    first = supervise(*options, "--recompress", "fast", job=counts(16))
    saved = supervise.save_each(first, 3)
    wait_for(
        lambda: (
            list(supervise.snapshots) == saved[1:] and {compression(supervise, one) for one in saved[1:]} == {"fast"}
        ),
        60,
        f"two snapshots, compressed; {first.said}",
    )
    wait_for(lambda: background(first) is None, 30, "the end of it")
    assert "warning" not in first.said
    supervise.kill_all()
    ckptctl("verify", "--read-data").check()
    small = ckptctl.json("list")["result"]
    assert all(one["size_bytes"] < 8 << 20 for one in small)

    second = supervise(*options, job=counts(16)).check(0)
    assert f"goes on from {saved[-1]}" in second.said
    assert supervise.log() == log()
    ckptctl("prune").check()
    supervise.require_nothing_left()


def test_a_last_snapshot_does_not_wait_for_it(
    held: tuple[Supervisor, int], supervise: Supervised, ckptctl: CommandLine
) -> None:
    supervisor, pid = held
    supervisor.signal(signal.SIGTERM)
    supervisor.check(75)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, "its end")
    assert len(supervise.snapshots) == 2
    assert compression(supervise, supervise.snapshots[0]) == "off", "it is as it was"
    assert "not made smaller" not in supervisor.said
    ckptctl("verify", "--read-data").check()
    supervise.require_nothing_left()
    supervise(job=counts(128)).check(0)
    assert supervise.log() == log()


def test_snapshots_and_retention_go_on_meanwhile_and_a_failure_is_said_once(
    held: tuple[Supervisor, int], supervise: Supervised
) -> None:
    supervisor, pid = held
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    supervise.save_at(supervisor, (20,))
    assert background(supervisor) == pid, "never two at once"
    os.kill(pid, signal.SIGKILL)
    supervisor.wait_said("are not made smaller. It ended with signal SIGKILL.")
    # What came in between is done as soon as the one before has ended.
    wait_for(lambda: {compression(supervise, one) for one in supervise.snapshots} == {"better"}, 60, supervisor.said)
    supervise.allow(None)
    supervisor.check(0)
    assert "W_RETENTION" not in {one.code for one in supervise.record.alerts}
    assert [one.code for one in supervise.record.alerts] == ["W_RECOMPRESS"]


def test_without_its_supervisor_it_comes_to_its_end(
    held: tuple[Supervisor, int], supervise: Supervised, ckptctl: CommandLine
) -> None:
    supervisor, pid = held
    supervisor.signal(signal.SIGKILL)
    supervisor.check(-signal.SIGKILL)
    os.kill(pid, signal.SIGCONT)
    (only,) = supervise.snapshots
    wait_for(lambda: compression(supervise, only) == "better", 60, "a snapshot that is compressed")
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), 30, "its end")
    ckptctl("verify", "--read-data").check()
    supervise(job=counts(128)).check(0)
    assert supervise.log() == log()
    supervise.require_nothing_left()
