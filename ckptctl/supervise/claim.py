"""One supervisor for each run, on all machines that share the store; a machine that died does not hold its runs for
ever.

While it holds the lock of its run a supervisor touches a file beside it every few seconds. One on another machine that
meets the lock watches that file for a while, by its own clock; where nothing moves, it takes the run over. Should the
first machine only have slept, its supervisor sees that its lock is gone, and ends its job at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.events import Caution, Notice
from ckptctl.process import control
from ckptctl.snapshot.services import Services
from ckptctl.store import locks
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.locks import Locked
from ckptctl.units import format_duration

BEAT_S: Final = 10.0
# A file system that is shared may show changes late (NFS: up to a minute, see acregmax in nfs(5)).
SILENCE_S: Final = 120.0
_POLL_S: Final = 0.5


class Claim:
    """A run that is ours."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock

    def is_lost(self) -> bool:
        """Whether a supervisor on another machine took us for dead; False too where that cannot be seen now."""
        try:
            self._lock.stat()
        except FileNotFoundError:
            # With the whole store away, unmounted say, nobody has taken over anything.
            return self._lock.parent.is_dir()
        except OSError:
            return False
        return False


@contextmanager
def claim(
    store: Store, run: RunFolder, services: Services, *, beat_s: float = BEAT_S, silence_s: float = SILENCE_S
) -> Iterator[Claim]:
    """Be the only supervisor of the run in this block, and give signs of life. Raises Locked, FileTrouble, NoSpace."""
    with ExitStack() as held:
        try:
            ours = held.enter_context(_held(store, run, services, beat_s))
        except Locked as error:
            if not error.details.get("out_of_sight") or not _is_dead(error, run, services, silence_s):
                raise
            files.remove(Path(str(error.details["lock"])))
            ours = held.enter_context(_held(store, run, services, beat_s))
        yield ours


@contextmanager
def _held(store: Store, run: RunFolder, services: Services, beat_s: float) -> Iterator[Claim]:
    want = [locks.supervision_of(run.name)]
    wait_s, interrupt = services.lock_wait_s, services.interrupt
    with locks.hold(store.locks, want, services.owner, wait_s=wait_s, interrupt=interrupt) as lock:
        ended = threading.Event()
        # A daemon: a file system that hangs must not keep ckptctl from ending.
        beats = threading.Thread(target=_beat, args=(run.heartbeat, ended, beat_s), name="heartbeat", daemon=True)
        beats.start()
        try:
            yield Claim(lock)
        finally:
            ended.set()


def _beat(path: Path, ended: threading.Event, beat_s: float) -> None:
    while not ended.is_set():
        # A disk that is full or away is no reason to end; what counts is that it moves again when it can.
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            os.utime(path)
        ended.wait(beat_s)


def _is_dead(error: Locked, run: RunFolder, services: Services, silence_s: float) -> bool:
    """Whether whoever holds the lock gives no sign of life for `silence_s`, which is waited for."""
    host = error.details["host"]
    services.reporter.report(
        Notice(
            f"{error.message} Whether it lives cannot be seen from here: its signs of life are watched for "
            f"{format_duration(silence_s)}."
        )
    )
    before = _moved(run.heartbeat)
    alive = control.wait_until(
        lambda: _moved(run.heartbeat) != before, timeout_s=silence_s, interrupt=services.interrupt, poll_s=_POLL_S
    )
    if not alive:
        text = f"The supervisor on {host} has given no sign of life: it is taken for dead, and the run goes on here."
        services.reporter.report(Caution(text, "W_TAKEN_FOR_DEAD"))
    return not alive


def _moved(path: Path) -> int | None:
    # Opened, because a file system that is shared looks for changes then (close-to-open consistency).
    with suppress(OSError), open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None
