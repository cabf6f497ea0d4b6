"""The process and thread ids that a restored job must get back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ckptctl.interrupt import Interrupt
from ckptctl.process import control
from ckptctl.snapshot.returned import owners
from ckptctl.store.manifest import Manifest

REMEDY: Final = "End what uses them, or restore beside it with --new-pid-namespace."

# Who lives, or has a parent that asks for no zombie, hardly goes; who is ending just now may have much memory to free.
_ROUND_S: Final = 2.0
_ROUNDS: Final = 10


def ids_of(manifest: Manifest) -> tuple[int, ...]:
    """Every one of them, in the PID namespace in which the job was dumped."""
    numbers = (number for process in manifest.tree.processes for number in (process.pid, *process.threads))
    return tuple(dict.fromkeys(numbers))


def come_free(numbers: Collection[int], interrupt: Interrupt) -> bool:
    """Wait until none of these is in use any more; False where they stay so. Raises what `interrupt` raises."""
    for _ in range(_ROUNDS):
        if control.wait_until(lambda: not control.taken(numbers), timeout_s=_ROUND_S, interrupt=interrupt):
            return True
        if not control.ending(numbers):
            return False
    return False


def in_use(taken: Iterable[int]) -> str:
    """That these are in use, and by whom, in a sentence."""
    return f"The job needs its process and thread ids back, and these are in use: {owners(taken)}."
