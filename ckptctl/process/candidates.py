"""Which processes of this machine are the roots of jobs: one look at /proc for all of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.process import proc
from ckptctl.process.identity import ProcessId
from ckptctl.process.member import Stat, command_words, read_stat

# What training jobs are started by, as names of programs or scripts; versions (python3.11) are cut off.
LAUNCHERS: Final = ("torchrun", "python", "mpirun", "mpiexec", "orterun", "accelerate", "deepspeed")
# Programs of ckptctl itself that run for as long as a job does, or longer than one command; none of them is a job.
_OWN_PROGRAMS: Final = ("/ckptctl", "/ckptctl/criu/namespace_init.py", "/ckptctl/snapshot/terminal_keeper.py")
# The root of a job that `ckptctl run` has started: it is dumped with the job, which is its first child.
_KEEPER: Final = "/ckptctl/supervise/keeper.py"
# How `command.python_module` starts a module: two options, a program, a folder, and then its name.
_MODULE_OPTIONS: Final = ("-P", "-c")
_MODULE_AT: Final = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that could be dumped with its descendants; `members` begin with itself, parents before children.

    `age_s` is how long it has lived. `command` is that of the job, where the first process only keeps it.
    """

    id: ProcessId
    members: tuple[ProcessId, ...]
    user_id: int
    age_s: float
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Processes:
    """All processes at one moment, by pid, and the children of each."""

    stats: Mapping[int, Stat]
    children: Mapping[int, tuple[int, ...]]
    uptime_s: float

    def roots(self, gpu_pids: Collection[int], own_pid: int) -> tuple[int, ...]:
        """The topmost process of each job: started by a launcher, or the user of a GPU where none of those is above.

        The tree in which `own_pid` runs is passed over: it cannot be dumped from inside. Jobs below it are found, and
        those below programs of ckptctl, such as the process 1 of a PID namespace that a job was restored into.
        """
        launched = {pid for pid, stat in self.stats.items() if _is_launcher(self._command(pid), stat.name)}
        wanted = (launched | set(gpu_pids)) & self.stats.keys() - self._around(own_pid)
        return tuple(pid for pid in sorted(wanted) if wanted.isdisjoint(self._above(pid)))

    def leaders(self, own_pid: int) -> tuple[int, ...]:
        """Every process that leads a group, whatever was started on its own: services and shells too."""
        around = self._around(own_pid)
        return tuple(pid for pid, stat in sorted(self.stats.items()) if stat.group_id == pid and pid not in around)

    def candidate(self, pid: int) -> Candidate | None:
        """The tree below this process; None for a zombie, a kernel thread, and where it has ended meanwhile."""
        stat = self.stats[pid]
        command = self._command(pid)
        try:
            user_id = Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            return None
        if not command:
            return None
        age_s = max(0.0, self.uptime_s - stat.start_ticks / os.sysconf("SC_CLK_TCK"))
        members = tuple(self.stats[one].id for one in self._below(pid))
        return Candidate(stat.id, members, user_id, age_s, self._kept_command(pid) or command)

    def _kept_command(self, pid: int) -> tuple[str, ...]:
        """What runs below a keeper, which starts nothing but the job; empty for other processes, and when it ended."""
        children = self.children.get(pid, ())
        if not children or not _script(self._command(pid)).endswith(_KEEPER):
            return ()
        return self._command(min(children, key=lambda child: self.stats[child].start_ticks))

    def _above(self, pid: int) -> Iterator[int]:
        while (pid := self.stats[pid].parent_pid) in self.stats:
            yield pid

    def _around(self, pid: int) -> set[int]:
        return {pid, *self._above(pid)}

    def _below(self, pid: int) -> list[int]:
        order = [pid]
        for one in order:
            order += self.children.get(one, ())
        return order

    def _command(self, pid: int) -> tuple[str, ...]:
        try:
            return command_words(pid)
        except proc.Vanished:
            return ()


def read_all() -> Processes:
    """Look at every process once."""
    stats: dict[int, Stat] = {}
    for pid in proc.numbers("/proc"):
        try:
            stats[pid] = read_stat(f"/proc/{pid}/stat")
        except proc.Vanished:
            continue
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, stat in stats.items():
        children[stat.parent_pid].append(pid)
    below = {pid: tuple(found) for pid, found in children.items()}
    return Processes(stats, below, float(Path("/proc/uptime").read_text().split()[0]))


def _is_launcher(command: tuple[str, ...], name: str) -> bool:
    """Whether the program is a launcher: what was executed, or the script that an interpreter runs."""
    return any(_program(word) in LAUNCHERS for word in (name, *command[:1])) and not _is_own(command)


def _is_own(command: tuple[str, ...]) -> bool:
    if command[1:3] == _MODULE_OPTIONS:
        return "".join(command[_MODULE_AT : _MODULE_AT + 1]).startswith("ckptctl.")
    return _script(command).endswith(_OWN_PROGRAMS)


def _script(command: tuple[str, ...]) -> str:
    """What an interpreter runs, where its options have no values of their own."""
    return next((word for word in command[1:] if not word.startswith("-")), "")


def _program(word: str) -> str:
    """`python` for `/usr/bin/python3.11`."""
    return word.rpartition("/")[2].rstrip("0123456789.")
