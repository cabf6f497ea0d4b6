"""What a dump needs once criu has ended: loaded before it begins, while the job still runs."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Final

# About 0.08 s together. Loaded while criu works they compete with it for processors and lengthen the pause; loaded
# afterwards they lengthen the time in which the job stands still, or its snapshot is not durable yet.
_MODULES: Final = (
    "ckptctl.criu.network",
    "ckptctl.snapshot.describe",
    "ckptctl.store.digests",
    "ckptctl.store.manifest_json",
    "ckptctl.store.script",
    "google.protobuf.message_factory",
)


def preload() -> threading.Thread:
    """Load it in a thread, to be waited for before the freeze: what else is prepared mostly waits, for the disk and for
    memory that the kernel has to clear."""
    thread = threading.Thread(target=_load, name="preload", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    for module in _MODULES:
        import_module(module)
