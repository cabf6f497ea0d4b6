"""Restoring into a PID namespace of its own, and dumping a tree that lives in one.

Process numbers must come back as they were. Where they are taken, the tree gets a PID namespace for itself: in it
process 1 is ckptctl's `namespace_init`, the restored root is its child, and /proc shows the namespace. Such a tree is
dumped by a criu that enters its PID and mount namespace, and then looks like any other: its snapshot may be restored in
a new namespace or outside.
"""

from __future__ import annotations

import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ckptctl import command
from ckptctl.process.control import end, walk
from ckptctl.process.identity import NoSuchProcess, ProcessId, identify

if TYPE_CHECKING:
    from ckptctl.criu.program import Criu
    from ckptctl.criu.records import RestoreStats
    from ckptctl.criu.restore import RestoreRequest
    from ckptctl.interrupt import Interrupt

INIT_PROGRAM = Path(__file__).with_name("namespace_init.py")
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class NamespaceResult:
    """A tree that runs again in a PID namespace of its own; the numbers here are those of the caller's namespace.

    `child` is a child of the caller that ends with the exit status of the restored root, after the last process of the
    namespace (128 + N for signal N). Signals for the job go to `root`. Ending `init` ends everything in there.
    """

    root: ProcessId
    init: ProcessId
    child: command.Child
    stats: RestoreStats


def new_pid_namespace_prefix(status_fd: int, root_pid: int) -> tuple[str, ...]:
    """What a detached `criu restore` is started through: a new PID and mount namespace with an init (see there).

    The mounts go on to follow those outside (slave), so that what is mounted later is seen inside too.
    """
    return (
        "unshare", "--pid", "--fork", "--mount", "--propagation", "slave", "--mount-proc", "--",
        sys.executable, "-I", "-S", str(INIT_PROGRAM), str(status_fd), str(root_pid),
    )  # fmt: skip


def enter_namespaces_prefix(pid: int) -> tuple[str, ...]:
    """What `criu dump` is started through for the tree of `pid` (a number of ours); empty where nothing is to enter.

    Inside, the tree has other numbers: see `pid_inside`. Raises NoSuchProcess, and OSError where it is not ours.
    """
    options = [
        option
        for kind, option in (("pid", "--pid"), ("mnt", "--mount"))
        if _namespace(str(pid), kind) != _namespace("self", kind)
    ]
    return ("nsenter", "--target", str(pid), *options, "--") if options else ()


def pid_inside(pid: int) -> int:
    """The number that a process (a number of ours) has in its own PID namespace. Raises NoSuchProcess."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _ended(pid) from error
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _namespace(pid: str, kind: str) -> Path:
    try:
        return Path("/proc", pid, "ns", kind).readlink()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _ended(pid) from error


def _ended(pid: int | str) -> NoSuchProcess:
    return NoSuchProcess(f"Process {pid} has ended.", hint="Look into the output of the job for why it ended.")


def restore_in_new_pid_namespace(criu: Criu, request: RestoreRequest, *, interrupt: Interrupt) -> NamespaceResult:
    """Restore the tree beside whatever has its numbers. Whatever is raised, nothing of the tree is left.

    `request.parent` must be INIT. Raises what `interrupt` raises, CriuRestoreFailed, CommandMissing, ImageDamaged, and
    NoSuchProcess for a root that ended at once.
    """
    # Not at the top: a dump needs only the functions above.
    from ckptctl.criu.images import read_restore_stats
    from ckptctl.criu.restore import restore_failed

    request.pidfile.unlink(missing_ok=True)
    reading, writing = os.pipe()
    try:
        child = _start(criu, request, writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        status = _read_status(reading, interrupt)
        if status != 0:
            raise restore_failed(request, status)
        request.require_sound_images()
        unshare = identify(child.pid)
        init, root = _find_inside(unshare, request.root_pid)
        return NamespaceResult(root, init, child, read_restore_stats(request.logs))
    except BaseException:
        _end_namespace(child)
        raise
    finally:
        os.close(reading)


def _start(criu: Criu, request: RestoreRequest, status_fd: int) -> command.Child:
    from ckptctl.criu.restore import OUTPUT

    return command.start(
        [*new_pid_namespace_prefix(status_fd, request.root_pid), *request.argv(criu)],
        output=request.logs / OUTPUT,
        pass_fds=[status_fd, *(one.fd for one in request.inherit)],
    )


def _read_status(reading: int, interrupt: Interrupt) -> int:
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    while not poller.poll(_TICK_S * 1000):
        interrupt.check()
    said = os.read(reading, 16)
    # Nothing: unshare or the init could not do their part; what they said is in the output.
    return int(said) if said else 1


def _find_inside(unshare: ProcessId, root_pid: int) -> tuple[ProcessId, ProcessId]:
    tree = walk(unshare)
    for process in tree[2:]:
        if pid_inside(process.pid) == root_pid:
            return tree[1], process
    raise NoSuchProcess(f"The restored process {root_pid} ended at once.", hint="Look at the output of the job.")


def _end_namespace(child: command.Child) -> None:
    """SIGKILL process 1 of the namespace: the kernel then ends all others in it."""
    unshare = identify(child.pid)
    # It may only be about to start process 1: asked again until all is over.
    child.wait(lambda: end(walk(unshare)[1:2]), _TICK_S)
    child.close()
