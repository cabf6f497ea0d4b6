"""A tree that criu says it has restored: is all of it there, does it run; and ending it where it is not wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from ckptctl.command import Child
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.process import control
from ckptctl.process.identity import ProcessId
from ckptctl.process.member import State, read_process, read_stat
from ckptctl.process.proc import Vanished
from ckptctl.store.manifest import Manifest, ProcessState

_SETTLE_S: Final = 10.0
_END_TIMEOUT_S: Final = 30.0
_NAMED_MOST: Final = 5


class NotReturned(CkptctlError):
    """criu said that it restored the job, but not all of it is there and runs."""

    code = "E_NOT_RETURNED"
    exit_status = ExitStatus.RESTORE_FAILED


class NotEnded(CkptctlError):
    """Processes of a restore that was given up do not end."""

    code = "E_NOT_ENDED"
    exit_status = ExitStatus.RESTORE_FAILED


def require_all(manifest: Manifest, root: ProcessId) -> None:
    """See that every process of the manifest is there again below `root`, in a tree that criu has left stopped.

    Nothing can have ended by itself yet: whatever is missing was not restored. Raises NotReturned.
    """
    _require(_living(manifest), _inside(control.walk(root)))


def let_go(manifest: Manifest, root: ProcessId) -> None:
    """Let the restored tree run, but for processes that were stopped at the dump. Raises NotReturned."""
    states = _living(manifest)
    moving = [
        process for pid, process in _inside(control.walk(root)).items() if states.get(pid) is not ProcessState.STOPPED
    ]
    control.let_run(moving)
    if not control.wait_until(lambda: not any(control.standing(one).stopped for one in moving), timeout_s=_SETTLE_S):
        raise NotReturned("criu restored the job, but it is stopped and does not go on.", hint="Restore it again.")


def end_all(processes: Sequence[ProcessId], child: Child | None) -> None:
    """End a tree that came up; for one in a PID namespace of its own `processes` is that namespace's process 1.

    Raises NotEnded where it is still there after a while: its processes wait inside the kernel, for a disk perhaps.
    """
    everything = tuple(dict.fromkeys(below for process in processes for below in (*control.walk(process), process)))
    control.end(everything)
    if not control.wait_until(lambda: all(control.standing(one).gone for one in everything), timeout_s=_END_TIMEOUT_S):
        left = [one.pid for one in everything if not control.standing(one).gone]
        raise NotEnded(
            f"The processes {', '.join(map(str, left))} that were restored do not end.",
            hint="They wait inside the kernel, for a disk perhaps. `ckptctl recover` puts everything back later.",
        )
    for process in everything:
        control.reap(process)
    if child is not None:
        child.wait()  # for `unshare`, which ends with the process 1 that has just ended
        child.close()


def pids_here(pids: Sequence[int], root: ProcessId) -> tuple[int, ...]:
    """The pids of the images as they are seen from here, which differs inside a PID namespace of its own.

    Raises NotReturned where one of them is not there any more.
    """
    present = _inside(control.walk(root))
    _require(pids, present)
    return tuple(present[pid].pid for pid in pids)


def owners(numbers: Iterable[int]) -> str:
    """Who uses these pids and thread ids, for people: `123 (python)`, a zombie with the parent that keeps it."""
    listed = list(numbers)
    more = f" and {len(listed) - _NAMED_MOST} more" if len(listed) > _NAMED_MOST else ""
    return ", ".join(_owner(number) for number in listed[:_NAMED_MOST]) + more


def _require(pids: Iterable[int], present: Mapping[int, ProcessId]) -> None:
    missing = sorted(set(pids) - set(present))
    if missing:
        named = ", ".join(str(pid) for pid in missing[:_NAMED_MOST])
        raise NotReturned(
            f"criu said that it restored the job, but {len(missing)} of its processes are not there: {named}.",
            hint="See the log of criu beside the snapshot; restore it again.",
        )


def _owner(number: int) -> str:
    try:
        stat = read_stat(f"/proc/{number}/stat")
        if stat.state is not State.ZOMBIE:
            return f"{number} ({stat.name})"
        parent = read_stat(f"/proc/{stat.parent_pid}/stat")
    except Vanished:
        return str(number)
    return f"{number} (ended, but its parent {parent.pid} ({parent.name}) has not asked for its status)"


def _inside(tree: Iterable[ProcessId]) -> dict[int, ProcessId]:
    """The living processes by their pid in their own PID namespace."""
    found = {}
    for process in tree:
        with suppress(Vanished):
            facts = read_process(process.pid)
            if not facts.is_zombie:
                found[(facts.namespace_pids or (process.pid,))[-1]] = process
    return found


def _living(manifest: Manifest) -> dict[int, ProcessState]:
    return {one.pid: one.state for one in manifest.tree.processes if one.state is not ProcessState.ZOMBIE}
