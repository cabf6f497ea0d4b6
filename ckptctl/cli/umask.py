"""The umask of whoever called: a job gets it, while ckptctl itself creates files for its user alone."""

from __future__ import annotations

import os
from typing import Final

_PRIVATE: Final = 0o077
_callers: list[int] = []


def make_private() -> None:
    """From here on files are created for the user alone; criu creates its images as the umask says."""
    _callers[:] = [os.umask(_PRIVATE)]


def of_caller() -> int:
    """The umask before `make_private`."""
    return _callers[0]
