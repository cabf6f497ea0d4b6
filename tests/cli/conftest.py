"""A store with snapshots in it, and a terminal for the command line to run on."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

import pytest

from ckptctl.store import links
from ckptctl.store.layout import create_store
from support import CommandLine, Ended
from support.command_line import PROGRAM
from support.manifests import put_snapshot

Add = Callable[..., Path]
OnTerminal = Callable[..., Ended]


@pytest.fixture
def add(ckptctl: CommandLine) -> Add:
    """`add("train", 3, tags=("x",))` puts a snapshot of minute 3 into the store, as the latest of its run."""

    def add_snapshot(run: str, minute: int, **changes: object) -> Path:
        store = create_store(ckptctl.store)
        created = datetime(2026, 11, 20, 19, minute, tzinfo=UTC)
        name = f"{created:%Y%m%dT%H%M%SZ}-{minute:04x}"
        store.run(run).path.mkdir(mode=0o700, exist_ok=True)
        folder = store.run(run).snapshot(name)
        put_snapshot(folder, {"core-1.img": b"core"}, id=name, run=run, created=created, **changes)
        links.advance(store.run(run), name)
        return folder.path

    return add_snapshot


@pytest.fixture
def on_terminal(ckptctl: CommandLine) -> OnTerminal:
    """`on_terminal("list", columns=60)` runs ckptctl on a terminal; all that it shows is in `stdout`."""

    def run(*words: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> Ended:
        shown, terminal = pty.openpty()
        ioctl(terminal, TIOCSWINSZ, pack("HHHH", 24, columns, 0, 0))
        inherited = {name: value for name, value in ckptctl.environment.items() if name not in ("COLUMNS", "LINES")}
        process = subprocess.Popen(
            [PROGRAM, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
        )
        os.close(terminal)
        text = _all_of(shown).decode(errors="replace")
        return Ended(process.wait(60), text.replace("\r\n", "\n"), "")

    return run


def _all_of(shown: int) -> bytes:
    """Everything written to the terminal until nobody has it open any more."""
    parts = []
    with os.fdopen(shown, "rb", buffering=0) as file:
        try:
            while part := file.read(4096):
                parts.append(part)
        except OSError:  # EIO is how Linux says that the last one has closed it
            pass
    return b"".join(parts)
