"""Trainings under `ckptctl run` whose output is compared with that of an undisturbed one, line by line."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

from ckptctl.store.layout import RunFolder, Store
from support.command_line import CommandLine
from support.jobs import MARK, kill_marked, marked
from support.supervised import stepwise
from support.waiting import lines, wait_for

_TRAIN: Final = Path(__file__).parents[2] / "examples" / "train.py"
STEPS: Final = 200


def command(steps: int = STEPS, pause_s: float = 0.03) -> tuple[str, ...]:
    """The command line of a training that prints a line per step."""
    return (sys.executable, str(_TRAIN), str(steps), "--plain", "--pause", str(pause_s))


def undisturbed(steps: int = STEPS) -> list[str]:
    """All that such a training prints."""
    done = subprocess.run(command(steps, 0), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def held(steps: int = STEPS) -> tuple[str, ...]:
    """The command line of the same training where a `Training` holds it: it goes to its end only when it may."""
    return stepwise(_TRAIN, str(steps), "--plain", "--pause", "0.01")


class Training:
    """A run that was started by `ckptctl run`; whoever goes on with it inherits its mark, and is surely ended.

    What `held` is waits in its 40th step until `wait_end`, so that nothing that takes long finds it at its end.
    """

    def __init__(self, ckptctl: CommandLine, run: str, *options: str, words: tuple[str, ...] | None = None) -> None:
        """Start it in a working folder of its own. `words`: the job, else a training that is held."""
        self.mark = secrets.token_hex(8)
        self.folder: RunFolder = Store(ckptctl.store).run(run)
        work = ckptctl.store.with_name(f"work-{run}")
        work.mkdir(exist_ok=True)
        self._until = work / "until"
        self._until.unlink(missing_ok=True)
        self._until.symlink_to("40")
        self.process = ckptctl.start(
            *("run", "--run", run, *options, "--", *(words or held())), environment={MARK: self.mark}, cwd=work
        )

    def lines(self) -> list[str]:
        """What the job has printed so far."""
        return lines(self.folder.stdout)

    def wait_for_lines(self, count: int) -> list[str]:
        """What it has printed once that is so much."""
        wait_for(lambda: len(self.lines()) >= count, 60, f"{count} lines of {self.folder.name}, {self.said()}")
        return self.lines()

    def said(self) -> str:
        """What ckptctl wrote into the log of the run."""
        log = self.folder.output / "ckptctl.log"
        return log.read_text() if log.exists() else ""

    def processes(self) -> list[int]:
        """ckptctl, the keeper and the job."""
        return marked(self.mark)

    def wait_gone(self) -> None:
        """Until nothing of it runs."""
        wait_for(lambda: not self.processes(), 60, f"the end of {self.folder.name}, {self.said()}")

    def release(self) -> None:
        """Let it go to its end."""
        self._until.unlink(missing_ok=True)

    def wait_end(self) -> None:
        """Let it go to its end, and wait for that."""
        self.release()
        self.wait_gone()

    def close(self) -> None:
        """End all of it."""
        kill_marked(self.mark)
