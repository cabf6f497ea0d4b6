"""What check tells to do about a blocker is done; then check has nothing against the job, and it comes through."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Jobs, wait_for
from support.command_line import PROGRAM
from support.jobs import state
from support.shapes import Shape, started
from support.tmpfs import tmpfs

pytestmark = pytest.mark.requires_criu

_WITHOUT_IO_URING = Path(__file__).parents[2] / "examples" / "without_io_uring.py"


@dataclass(frozen=True)
class Start:
    """How a shape is started: its name and words, and a command before."""

    words: str
    prefix: str = ""

    def __str__(self) -> str:
        return "-".join(f"{self.prefix} {self.words}".replace("/", "").replace("-", "").split())


def let_go(shape: Shape, _finding: Any) -> None:
    """Let the job close it."""
    os.kill(shape.pid, signal.SIGUSR1)


def unmap(shape: Shape, _finding: Any) -> None:
    """Let the job take its mapping away."""
    os.kill(shape.pid, signal.SIGUSR2)


def end_tracer(_shape: Shape, finding: Any) -> None:
    os.kill(int(finding["data"]["tracer"]), signal.SIGKILL)


def end_holder(_shape: Shape, finding: Any) -> None:
    os.kill(int(finding["data"]["pid"]), signal.SIGKILL)


# What is done to the job as it runs, by the check that is against it.
MENDED_LIVE = (
    ("io-uring", Start("io_uring"), let_go),
    ("perf-event", Start("perf_event"), let_go),
    ("userfaultfd", Start("userfaultfd"), let_go),
    ("bpf", Start("bpf --program"), let_go),
    ("anonymous-inode", Start("other_descriptors --kind landlock"), let_go),
    ("mount", Start("other_descriptors --kind memfd_secret"), let_go),
    ("mount", Start("other_descriptors --kind mqueue"), let_go),
    ("socket-kind", Start("other_descriptors --kind vsock"), let_go),
    ("socket-kind", Start("other_descriptors --kind mptcp"), let_go),
    ("device", Start("device --path /dev/fuse"), let_go),
    ("device-mapping", Start("device --path /dev/loop0 --only-mapped"), unmap),
    ("unix-stream-outside", Start("unix_outside --kind stream"), let_go),
    ("unix-stream-outside", Start("unix_outside --kind pair"), let_go),
    ("unix-unaccepted", Start("unix_outside --kind unaccepted"), let_go),
    ("unix-datagram-outside", Start("unix_outside --kind datagram"), let_go),
    ("pipe-outside", Start("pipe_outside"), let_go),
    ("traced", Start("traced"), end_tracer),
    ("shared-lock", Start("flock_outside"), end_holder),
)
# What must be done before the job is started: how it is, and how it should be.
STARTED_ANEW = (
    ("io-uring", Start("io_uring --optional"), Start("io_uring --optional", f"{sys.executable} {_WITHOUT_IO_URING}")),
    ("sysv-shared-memory", Start("sysv_shm"), Start("sysv_shm", "unshare --ipc")),
    ("first-thread", Start("dead_leader"), Start("dead_leader --joined")),
    ("user-namespace", Start("append_log", "unshare --user --map-root-user"), Start("append_log")),
    ("nested-namespaces", Start("namespace --kind uts --child"), Start("namespace --kind uts")),
    ("unix-datagram-outside", Start("unix_outside --kind datagram"), Start("unix_outside --kind datagram --absolute")),
    ("periodic-timer", Start("timers_signals --periodic"), Start("timers_signals")),
    ("terminal-outside", Start("terminal --master outside"), Start("append_log")),
)


@pytest.mark.parametrize(("check", "start", "mend"), MENDED_LIVE, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_running_job_is_mended(
    check: str, start: Start, mend: Callable[[Shape, Any], None], start_job: Jobs, ckptctl: CommandLine
) -> None:
    with begun(start_job, start) as shape:
        shape.wait_steps(3)
        mend(shape, named(ckptctl, shape, check))
        wait_for(lambda: problems(ckptctl, shape) == [], 20, f"nothing against {shape.job}")
        goes_through(ckptctl, shape)


@pytest.mark.parametrize(("check", "wrong", "right"), STARTED_ANEW, ids=str)
def test_a_job_is_started_as_it_should_be(
    check: str, wrong: Start, right: Start, start_job: Jobs, ckptctl: CommandLine
) -> None:
    with begun(start_job, wrong) as shape:
        shape.wait_steps(3)
        assert named(ckptctl, shape, check)["remedy"]
    with begun(start_job, right) as shape:
        shape.wait_steps(3)
        assert problems(ckptctl, shape) == []
        goes_through(ckptctl, shape)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small store")
def test_another_place_has_room(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    with begun(start_job, Start("append_log")) as shape, tmpfs(tmp_path / "small", "size=1m") as small:
        shape.wait_steps(3)
        words = ("check", "--pid", str(shape.pid), "--json", "--store", str(small / "store"))
        found = [one for one in ckptctl(*words).check(5).document["result"]["findings"] if one["level"] != "ok"]
        assert [one["check"] for one in found] == ["space"]
        assert "choose another place with --store" in found[0]["remedy"]
        ckptctl("dump", "--pid", str(shape.pid), "--store", str(small / "store")).check(14)
        assert problems(ckptctl, shape) == []
        goes_through(ckptctl, shape)


def test_ckptctl_is_run_outside_the_job(start_job: Jobs, ckptctl: CommandLine) -> None:
    words = ["sh", "-c", '"$0" check --pid $$ --json >out; exec sleep 60', PROGRAM]
    job = start_job(words, environment=ckptctl.environment)
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 60, "the answer")
    answer = json.loads((job.folder / "out").read_text())["result"]
    (found,) = (one for one in answer["findings"] if one["level"] != "ok")
    assert (found["check"], found["level"]) == ("own-tree", "error")
    assert found["remedy"].startswith("Run ckptctl outside the job")
    ckptctl("check", "--pid", str(job.pid)).check()
    ckptctl("dump", "--pid", str(job.pid)).check()
    ckptctl("restore", "latest").check()
    assert state(job.pid) == "S"


def begun(start_job: Jobs, start: Start) -> Any:
    name, *words = start.words.split()
    return started(start_job, name, *words, prefix=start.prefix.split())


def problems(ckptctl: CommandLine, shape: Shape) -> list[Any]:
    """The findings that are not ok."""
    answer = ckptctl("check", "--pid", str(shape.pid), "--json").document["result"]
    return [finding for finding in answer["findings"] if finding["level"] != "ok"]


def named(ckptctl: CommandLine, shape: Shape, check: str) -> Any:
    """The one finding against the job, which must be this check's."""
    (found,) = problems(ckptctl, shape)
    assert found["check"] == check
    return found


def goes_through(ckptctl: CommandLine, shape: Shape) -> None:
    """Dump it and restore it: it goes on where it was."""
    ckptctl("dump", "--pid", str(shape.pid)).check()
    at_the_dump = shape.steps()
    ckptctl("restore", "latest").check()
    shape.wait_steps(at_the_dump + 5)
