"""A shell on a terminal, typed into as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from support.waiting import wait_for

_PROMPT: Final = "READY# "
# So wide that no line is broken.
_ROWS, _COLUMNS = 50, 400
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal:
    """bash with job control on a terminal of its own."""

    def __init__(self, cwd: Path, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**environment, "PS1": _PROMPT, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._shown = bytearray()
        self._typed_at = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, line: str) -> None:
        """Type a line and Enter, once the shell is ready for it."""
        self.wait_for_prompt()
        self._typed_at = len(self._shown)
        os.write(self._master, f"{line}\n".encode())

    def press_ctrl_c(self) -> None:
        """Interrupt what runs in the foreground."""
        os.write(self._master, b"\x03")

    def wait_for_prompt(self, timeout_s: float = 300) -> None:
        """Wait until the line that was typed last has been done."""
        self._wait_for(lambda: _PROMPT in self.shown(), timeout_s, "a prompt")

    def see(self, pattern: str, timeout_s: float = 120) -> None:
        """Wait for a line that matches, since the last one was typed."""
        found = re.compile(f"^{pattern}$", re.MULTILINE)
        self._wait_for(lambda: bool(found.search(self.shown())), timeout_s, pattern)

    def shown(self) -> str:
        """What has appeared since the last line was typed, its echo included, without colours and the like."""
        return _CONTROL.sub("", bytes(self._shown[self._typed_at :]).decode(errors="replace"))

    def close(self) -> None:
        """Kill the shell; what it has started is somebody else's business."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)

    def _wait_for(self, predicate: Callable[[], bool], timeout_s: float, what: str) -> None:
        try:
            wait_for(predicate, timeout_s, what)
        except AssertionError as error:
            error.add_note(f"The terminal shows:\n{self.shown()[-4000:]}")
            raise

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 1 << 16):
                self._shown += data
        except OSError:
            return  # the last process on the terminal is gone, or it was closed
