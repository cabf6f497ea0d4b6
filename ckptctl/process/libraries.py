"""Which shared libraries a process has loaded: some of them tell how it uses its GPUs."""

from __future__ import annotations

from typing import Final

from ckptctl.process import proc

_SHARED_OBJECT: Final = ".so"


def loaded_libraries(pid: int) -> frozenset[str]:
    """The file names of the shared libraries that a process has mapped; empty where it has gone or may not be read."""
    try:
        lines = proc.read(f"/proc/{pid}/maps").splitlines()
    except proc.Vanished:
        return frozenset()
    paths = {line[line.index("/") :] for line in lines if _SHARED_OBJECT in line and "/" in line}
    return frozenset(path.rpartition("/")[2] for path in paths)
