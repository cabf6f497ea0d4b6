"""Acting on processes: let them run, end them, wait for them. Each identity is checked again before each act."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.interrupt import Interrupt, Never
from ckptctl.process import proc
from ckptctl.process.identity import NoSuchProcess, ProcessId
from ckptctl.process.member import State, read_stat
from ckptctl.process.tree import descendants

_POLL_S: Final = 0.01
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Standing:
    """A process as it stands at one moment; `state` is DEAD when it is gone."""

    process: ProcessId
    state: State

    @property
    def stopped(self) -> bool:
        """Stopped by a signal, as CRIU leaves a tree that is to be ended."""
        return self.state is State.STOPPED

    @property
    def gone(self) -> bool:
        """Ended, reaped or not."""
        return self.state in (State.ZOMBIE, State.DEAD)


def walk(root: ProcessId) -> tuple[ProcessId, ...]:
    """The process and its descendants now, parents before children; empty when it is gone.

    Complete only for a tree that cannot fork, because it is stopped or frozen.
    """
    try:
        return descendants(root)
    except NoSuchProcess:
        return ()


def standing(process: ProcessId) -> Standing:
    """The state of a process now."""
    try:
        stat = read_stat(f"/proc/{process.pid}/stat")
    except proc.Vanished:
        return Standing(process, State.DEAD)
    return Standing(process, stat.state if stat.id == process else State.DEAD)


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it is gone.

    The pidfd is taken before the identity is checked, so the pid cannot change hands in between.
    Raises PermissionError.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if standing(process).gone:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def let_run(processes: Iterable[ProcessId], *, keep_stopped: frozenset[ProcessId] = frozenset()) -> None:
    """Continue every process but those that were stopped before we came. Raises PermissionError.

    Those too that do not seem to be stopped: CRIU's SIGSTOP may still be on its way, and SIGCONT takes it back.
    """
    for process in processes:
        if process not in keep_stopped:
            send(process, signal.SIGCONT)


def end(processes: Sequence[ProcessId]) -> None:
    """SIGKILL each process; those that are gone are skipped. Raises PermissionError."""
    for process in processes:
        send(process, signal.SIGKILL)


def wait_until(
    condition: Callable[[], bool], *, timeout_s: float, interrupt: Interrupt | None = None, poll_s: float = _POLL_S
) -> bool:
    """Wait until the condition holds; False after `timeout_s` seconds. Raises what `interrupt` raises."""
    asked = interrupt or Never()
    deadline = time.monotonic() + timeout_s
    while not condition():
        asked.check()
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def taken(numbers: Iterable[int]) -> tuple[int, ...]:
    """Those of the pids or thread ids that are in use in this PID namespace, by zombies too.

    /proc/N answers for thread ids as well, though a listing of /proc does not show them (proc(5)). The kernel also
    keeps a number for as long as some process has it as its group or session.
    """
    wanted = list(numbers)
    groups = _groups_and_sessions() if wanted else frozenset()
    return tuple(number for number in wanted if number in groups or Path(f"/proc/{number}/stat").exists())


def ending(numbers: Iterable[int]) -> bool:
    """Whether any of these pids or thread ids is of one that is on its way out, but no zombie yet."""
    return any(_is_ending(number) for number in numbers)


def _is_ending(number: int) -> bool:
    try:
        return read_stat(f"/proc/{number}/stat").is_ending
    except proc.Vanished:
        return False


def _groups_and_sessions() -> frozenset[int]:
    found: set[int] = set()
    for pid in proc.numbers("/proc"):
        with suppress(proc.Vanished):
            stat = read_stat(f"/proc/{pid}/stat")
            found.update((stat.group_id, stat.session_id))
    return frozenset(found)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (PR_SET_CHILD_SUBREAPER, Linux 3.4), to `reap` it.

    Process 1 of a container may do that late or never, and an ended process keeps its pid until somebody does.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(process: ProcessId) -> None:
    """Ask for the status of a process that has ended, if it is a child of ours: its pid is free then."""
    if unreaped_parent(process) == os.getpid():
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def reap_adopted(before: frozenset[ProcessId]) -> frozenset[ProcessId]:
    """The adopted orphans that have ended; those of `before`, which the last call returned, are reaped.

    Whoever waits for a child of his own has done so by then, so the calls must be some seconds apart. Orphans are given
    to the main thread, which is why this looks at its children alone; at none where the kernel does not list them.
    """
    ended = frozenset(_ended_children())
    for process in before & ended:
        reap(process)
    return ended - before


def _ended_children() -> Iterator[ProcessId]:
    pid = os.getpid()
    with suppress(proc.Vanished):
        for child in proc.read(f"/proc/{pid}/task/{pid}/children").split():
            stat = read_stat(f"/proc/{child}/stat")
            if stat.state is State.ZOMBIE:
                yield stat.id


def unreaped_parent(process: ProcessId) -> int | None:
    """The parent that has not asked for the status of this process, which has ended; None where there is no zombie."""
    try:
        stat = read_stat(f"/proc/{process.pid}/stat")
    except proc.Vanished:
        return None
    return stat.parent_pid if stat.id == process and stat.state is State.ZOMBIE else None
