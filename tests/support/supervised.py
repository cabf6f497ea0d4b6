"""Runs under `ckptctl run` and `ckptctl watch`: their supervisors, what they said and showed, what they left."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ckptctl.store import manifest_json
from ckptctl.store.catalog import list_ids
from ckptctl.store.layout import RunFolder
from ckptctl.store.manifest import Progress
from ckptctl.supervise import supervision
from ckptctl.supervise.job import find_keeper
from ckptctl.supervise.supervision import Supervision
from support.command_line import PROGRAM, CommandLine
from support.jobs import MARK, kill_marked, marked, state
from support.waiting import lines, wait_for

# How far a job may go is said by a link in its folder, which is read without a descriptor that CRIU would save.
_GATE: Final = """
import os, time
def wait_for_leave(step, sleep=time.sleep):
    try:
        while step >= int(os.readlink("until")):
            sleep(0.01)
    except FileNotFoundError:
        pass
"""
# A training whose every line depends on all before it. Files in its folder tell it what to do: `until` -> N to go no
# further than the step N, `end-N` to end with the status N, `die-at-N` to die at the step N, `ignore` to pay no heed to
# SIGTERM.
TRAINS: Final = f"""{_GATE}
import glob, hashlib, os, signal, sys, time
steps, pause = int(sys.argv[1]), float(sys.argv[2])
if os.path.exists("ignore"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
value = b""
for step in range(1, steps + 1):
    value = hashlib.sha256(value + str(step).encode()).digest()
    loss = int.from_bytes(value[:4], "big") / 2**32
    print(f"step={{step}} epoch={{(step - 1) // 20}} loss={{loss!r}}", flush=True)
    if os.path.exists(f"die-at-{{step}}"):
        os.abort()
    for path in glob.glob("end-*"):
        sys.exit(int(path[4:]))
    wait_for_leave(step)
    time.sleep(pause)
"""
# Any script that rests by time.sleep once in each of its steps: there it heeds `until` too.
_STEPWISE: Final = f"""{_GATE}
import runpy, sys
step = 0
def rest(seconds, sleep=time.sleep):
    global step
    step += 1
    wait_for_leave(step, sleep)
    sleep(seconds)
time.sleep = rest
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_SAVED: Final = re.compile(r"^Snapshot (\S+)", re.MULTILINE)


def trains(steps: int, pause_s: float = 0.05) -> tuple[str, ...]:
    """The command line of the training."""
    return (sys.executable, "-c", TRAINS, str(steps), str(pause_s))


def gated(code: str) -> tuple[str, ...]:
    """The command line of a program that calls `wait_for_leave(step)` in each of its steps."""
    return (sys.executable, "-c", _GATE + code)


def stepwise(script: Path, *words: str) -> tuple[str, ...]:
    """The command line of a script that rests once in each step, so that `until` holds it."""
    return (sys.executable, "-c", _STEPWISE, str(script), *words)


def log_of(steps: int) -> list[str]:
    """What it prints when nothing disturbs it."""
    value, said = b"", []
    for step in range(1, steps + 1):
        value = hashlib.sha256(value + str(step).encode()).digest()
        said.append(f"step={step} epoch={(step - 1) // 20} loss={int.from_bytes(value[:4], 'big') / 2**32!r}")
    return said


@dataclass(frozen=True, slots=True)
class Supervisor:
    """One ckptctl that looks after a run."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def said(self) -> str:
        """What it said so far."""
        return self.stderr.read_text(errors="replace")

    @property
    def shown(self) -> list[str]:
        """The lines of the job that it showed so far."""
        return lines(self.stdout)

    @property
    def saved(self) -> list[str]:
        """The snapshots that it took so far, oldest first."""
        return _SAVED.findall(self.said)

    def wait_said(self, text: str, timeout_s: float = 60) -> None:
        """Wait until it has said this."""
        wait_for(lambda: text in self.said or self._is_over(text), timeout_s, f"{text!r} in {self.said}")

    def wait_saved(self, count: int, timeout_s: float = 60) -> list[str]:
        """The snapshots that it took, once there are so many."""
        wait_for(lambda: len(self.saved) >= count or self._is_over(f"{count} snapshots"), timeout_s, self.said)
        return self.saved

    def wait_handles(self, number: signal.Signals, timeout_s: float = 60) -> None:
        """Wait until this signal does not simply end it any more."""
        status = Path(f"/proc/{self.process.pid}/status")
        caught = re.compile(r"^SigCgt:\s*(\w+)$", re.MULTILINE)
        wait_for(
            lambda: int(caught.findall(status.read_text())[0], 16) >> (number - 1) & 1, timeout_s, f"{number} handled"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 90) -> int:
        """Its exit status, -N for signal N."""
        return self.process.wait(timeout_s)

    def check(self, status: int = 0, timeout_s: float = 90) -> Supervisor:
        """This, if it ends with `status`; AssertionError with what it said else."""
        found = self.wait(timeout_s)
        assert found == status, f"exit status {found} instead of {status}\n{self.said}"
        return self

    def _is_over(self, awaited: str) -> bool:
        assert self.process.poll() is None or awaited in self.said, f"it ended without {awaited!r}: {self.said}"
        return False


class Supervised:
    """One run of the store of `ckptctl`, whose supervisors a test starts; `folder` is where its job works."""

    def __init__(self, ckptctl: CommandLine, folder: Path, name: str = "gpt") -> None:
        self._ckptctl = ckptctl
        self.folder = folder
        self.name = name
        self.run = RunFolder(ckptctl.store / "runs" / name)
        self.mark = secrets.token_hex(8)
        self._supervisors: list[Supervisor] = []

    def __call__(
        self,
        *options: str | os.PathLike[str],
        job: Sequence[str | os.PathLike[str]] = trains(60),
        command: str = "run",
        environment: Mapping[str, str] | None = None,
        until: int | None = None,
        **choices: Any,
    ) -> Supervisor:
        """Start `ckptctl run --run NAME OPTIONS -- JOB`; `choices` are those of Popen, `until` that of `allow`."""
        self.allow(until)
        number = len(self._supervisors)
        stdout, stderr = self.folder / f"shown-{number}", self.folder / f"said-{number}"
        words = [PROGRAM, command, "--run", self.name, *options, *(("--", *job) if command == "run" else ())]
        choices.setdefault("cwd", self.folder)
        choices.setdefault("stdin", subprocess.DEVNULL)
        with stdout.open("wb") as shown, stderr.open("wb") as said:
            choices.setdefault("stdout", shown)
            process: subprocess.Popen[bytes] = subprocess.Popen(
                words,
                stderr=said,
                env={**self.environment, **(environment or {})},
                start_new_session=True,
                **choices,
            )
        supervisor = Supervisor(process, stdout, stderr)
        self._supervisors.append(supervisor)
        return supervisor

    def allow(self, steps: int | None) -> None:
        """Let the job do so many steps, or as many as it likes; it waits in the last of them for leave to go on."""
        if steps is None:
            (self.folder / "until").unlink(missing_ok=True)
            return
        new = self.folder / "until.new"
        new.symlink_to(str(steps))
        new.replace(self.folder / "until")

    def be_seen(self, timeout_s: float = 60) -> None:
        """Hold the job until its supervisor knows how far it is: what was done before is nothing that is due."""
        if self.seen_step() is None:
            self.allow(1)
            wait_for(lambda: self.seen_step() is not None, timeout_s, "a step that ckptctl saw")

    def save_each(self, supervisor: Supervisor, count: int, every: int = 10, timeout_s: float = 60) -> list[str]:
        """The snapshots of a job that is led from one to the next, `every` steps apart; it waits at the last one."""
        return self.save_at(supervisor, range(every, every * count + 1, every), timeout_s)

    def save_at(self, supervisor: Supervisor, steps: Iterable[int], timeout_s: float = 60) -> list[str]:
        """The snapshots of a job that is led from one step to the next, each of which makes one due."""
        self.be_seen(timeout_s)
        count = len(supervisor.saved)
        for step in steps:
            self.allow(step)
            count += 1
            supervisor.wait_saved(count, timeout_s)
        return supervisor.saved

    @property
    def environment(self) -> dict[str, str]:
        """What its supervisors are started with."""
        return {**self._ckptctl.environment, MARK: self.mark}

    @property
    def record(self) -> Supervision:
        """What the supervisor wrote down."""
        found = supervision.read(self.run.supervision)
        assert found is not None
        return found

    def seen_step(self) -> int | None:
        """How far the job is for all that its supervisor wrote down."""
        found = supervision.read(self.run.supervision)
        return None if found is None else found.progress.step

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The ids of its snapshots, oldest first."""
        return list_ids(self.run) if self.run.path.exists() else ()

    def progress(self, snapshot: str) -> Progress:
        """How far the training was when this snapshot was taken."""
        return manifest_json.read(self.run.snapshot(snapshot).manifest).progress

    def steps(self, snapshots: Iterable[str]) -> list[int]:
        """The steps of these snapshots."""
        return [self.progress(name).step or 0 for name in snapshots]

    def log(self) -> list[str]:
        """The lines that the job wrote to its standard output."""
        return lines(self.run.stdout)

    def wait_log(self, count: int, timeout_s: float = 60) -> list[str]:
        """They, once there are so many."""
        wait_for(lambda: len(self.log()) >= count, timeout_s, _missing(self, count))
        return self.log()

    def wait_step(self, step: int, timeout_s: float = 60) -> None:
        """Wait until the job is as far as that."""
        wait_for(lambda: any(f"step={step} " in line for line in self.log()), timeout_s, f"step {step}")

    def keeper(self) -> int:
        """The pid of the keeper that lives."""
        return wait_for(lambda: find_keeper(self.run), 30, "a keeper").pid

    def job(self) -> int:
        """The pid of the job below it."""
        keeper = self.keeper()
        children = Path(f"/proc/{keeper}/task/{keeper}/children")
        return int(wait_for(lambda: children.read_text().split(), 30, "a job")[0])

    def processes(self) -> list[int]:
        """All that lives of job, keeper and supervisors."""
        return marked(self.mark)

    def kill_all(self) -> None:
        """SIGKILL job, keeper and supervisors at once, as a power cut would."""
        kill_marked(self.mark)
        self.reap()

    def reap(self) -> None:
        """Collect supervisors that have ended."""
        for supervisor in self._supervisors:
            with suppress(subprocess.TimeoutExpired):
                supervisor.process.wait(0.01)

    def require_nothing_left(self) -> None:
        """No process of it is there, nor a lock, a journal, half a snapshot."""
        from support.leftovers import assert_nothing_is_left

        self.reap()
        assert not [pid for pid in self.processes() if state(pid) != "Z"]
        assert_nothing_is_left(self._ckptctl)

    def close(self) -> None:
        """Kill what is left."""
        self.kill_all()
        for supervisor in self._supervisors:
            supervisor.process.kill()
            supervisor.process.wait(10)


def _missing(run: Supervised, count: int) -> str:
    """What is said where the lines do not come."""
    errors = run.run.stderr.read_text(errors="replace")[-2000:] if run.run.stderr.exists() else ""
    return f"{count} lines of the job, stderr {errors!r}"
