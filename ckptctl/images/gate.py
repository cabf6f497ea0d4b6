"""Holding CRIU, all images written, until their contents have left its pipes.

What CRIU puts into a pipe are not copies but the job's own pages. A job that ran on while some of them wait to be read
would change what is being saved. So CRIU is given an action script that lets it go on (post-dump, the job still stands
still) only when it is told to, and that fails where the capture failed: CRIU then gives the dump up by itself and lets
the job run on, as it does when we are killed and the pipe to the script ends.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

_NAME: Final = "post-dump.sh"
_GO: Final = b"go\n"
# The script's own descriptors are closed by CRIU, those of CRIU itself, its parent, are not.
_SCRIPT: Final = """\
#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
echo written >"/proc/$PPID/fd/{asking}"
read -r answer <"/proc/$PPID/fd/{answering}"
[ "$answer" = go ]
"""


class Gate:
    """The script and the pipes to it. `asked` is a descriptor that can be read from once CRIU has come to it."""

    def __init__(self, folder: Path) -> None:
        """Write the script into `folder`. Raises OSError."""
        self._lock = threading.Lock()
        self.asked, self._asking = os.pipe()
        self._answering, self._answer = os.pipe()
        self._script = folder / _NAME
        self._script.write_text(_SCRIPT.format(asking=self._asking, answering=self._answering), encoding="ascii")
        self._script.chmod(0o700)
        self.words = ("--action-script", str(self._script))

    @property
    def pass_fds(self) -> tuple[int, int]:
        """The descriptors that criu must be started with."""
        return self._asking, self._answering

    def criu_has_started(self) -> None:
        """Only CRIU holds its ends now."""
        for descriptor in self.pass_fds:
            os.close(descriptor)
        self._asking = self._answering = -1

    def open(self) -> None:
        """Let CRIU end the dump with success; nothing where it is gone or was refused."""
        with self._lock, suppress(BrokenPipeError):
            if self._answer >= 0:
                os.write(self._answer, _GO)

    def refuse(self) -> None:
        """Let CRIU fail, also where it waits already, unless it was let through. From any thread."""
        with self._lock:
            if self._answer >= 0:
                os.close(self._answer)
            self._answer = -1

    def close(self) -> None:
        """CRIU fails where it has not been let through. The script is gone. Raises OSError."""
        self.refuse()
        for descriptor in (self.asked, self._asking, self._answering):
            if descriptor >= 0:
                os.close(descriptor)
        self.asked = self._asking = self._answering = -1
        self._script.unlink(missing_ok=True)
