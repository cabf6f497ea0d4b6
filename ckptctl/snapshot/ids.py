"""The process and thread ids that a restored job must get back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ckptctl.snapshot.returned import owners
from ckptctl.store.manifest import Manifest

REMEDY: Final = "End what uses them, or restore beside it with --new-pid-namespace."


def ids_of(manifest: Manifest) -> tuple[int, ...]:
    """Every one of them, in the PID namespace in which the job was dumped."""
    numbers = (number for process in manifest.tree.processes for number in (process.pid, *process.threads))
    return tuple(dict.fromkeys(numbers))


def in_use(taken: Iterable[int]) -> str:
    """That these are in use, and by whom, in a sentence."""
    return f"The job needs its process and thread ids back, and these are in use: {owners(taken)}."
