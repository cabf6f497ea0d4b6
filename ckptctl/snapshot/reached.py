"""How far a job is in its snapshot: what it has said of itself until it stood still, and nothing that came later."""

from __future__ import annotations

from collections.abc import Callable

from ckptctl.process.identity import ProcessId
from ckptctl.process.member import State, read_stat
from ckptctl.process.proc import Vanished
from ckptctl.store.manifest import Progress


class Reached:
    """The progress of one dump. `at_freeze` is that of the contents as soon as criu has ended, or a moment older."""

    def __init__(self, given: Progress | None, read: Callable[[], Progress] | None) -> None:
        """What was `given` counts, else what `read` says; nothing is known without either."""
        self._read = None if given is not None else read
        self.at_freeze = given or Progress()
        self._is_exact = False
        self.before_freeze()

    def before_freeze(self) -> None:
        """The job runs: read it, what is read now is no later than the contents."""
        if self._read is not None:
            self.at_freeze = self._read()

    def while_criu_works(self, root: ProcessId, written_bytes: int) -> None:
        """Read it again where the job stands still for criu, or surely has not done so yet."""
        if self._read is None or self._is_exact:
            return
        stood = _stands_still(root)
        found = self._read()
        # Without any memory written the job has not been let go again.
        if written_bytes == 0 or stood:
            self.at_freeze = found
        self._is_exact = stood and _stands_still(root)

    def while_stopped(self) -> None:
        """Read it for the last time: the job was left stopped, and says nothing any more."""
        self.before_freeze()


def _stands_still(root: ProcessId) -> bool:
    """Whether criu holds the process, which it traces."""
    try:
        stat = read_stat(f"/proc/{root.pid}/stat")
    except Vanished:
        return False
    return stat.id == root and stat.state is State.TRACED
