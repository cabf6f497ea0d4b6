"""CRIU by itself, without anything of ckptctl around it but the options chosen for a tree."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ckptctl.criu.options import Options
from ckptctl.process.control import taken
from ckptctl.process.tree import read_tree
from support.shapes import Shape
from support.waiting import wait_for

_STEPS: Final = 5


class PlainCriu:
    """Runs `criu dump` and `criu restore`; the images lie in `folder`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._images = folder / "images"
        self._images.mkdir()

    @property
    def images(self) -> Path:
        return self._images

    def dump(self, pid: int, words: list[str]) -> bool:
        return self._run("dump", "-t", str(pid), *words)

    def restore(self, options: Options, words: list[str]) -> bool:
        with terminals(options) as (descriptors, more):
            return self._run("restore", "-d", *words, *more, descriptors=descriptors)

    def _run(self, action: str, *words: str, descriptors: tuple[int, ...] = ()) -> bool:
        command: list[str | Path] = [self._program, action, "--no-default-config", "-D", self._images]
        done = subprocess.run(
            [*command, "-o", f"{action}.log", "-v4", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=descriptors,
            timeout=120,
        )
        return done.returncode == 0


@contextmanager
def terminals(options: Options) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    """A new pty for each terminal that the dump called external: its descriptor, and CRIU's words for it."""
    keys = [option.value for option in options.chosen if option.flag == "--external"]
    pairs = [pty.openpty() for _ in keys]
    for master, _ in pairs:
        threading.Thread(target=_drain, args=(os.dup(master),), daemon=True).start()
    words = [
        word for key, (_, slave) in zip(keys, pairs, strict=True) for word in ("--inherit-fd", f"fd[{slave}]:{key}")
    ]
    try:
        yield tuple(slave for _, slave in pairs), words
    finally:
        for pair in pairs:
            for descriptor in pair:
                os.close(descriptor)


def _drain(master: int) -> None:
    with suppress(OSError), os.fdopen(master, "rb", buffering=0) as file:
        while file.read(4096):
            pass


def restored(plain: PlainCriu, shape: Shape, options: Options) -> bool:
    """Whether dump and restore succeed; the tree is gone in between."""
    tree = read_tree(shape.pid)
    if not plain.dump(shape.pid, options.dump_words()):
        return False
    wait_for(lambda: not taken(tree.thread_ids), 20, "free process numbers")
    return plain.restore(options, options.restore_words())


def goes_on(shape: Shape) -> bool:
    """Whether the shape takes more steps, all of them right."""
    before = len(shape.lines())
    wait_for(
        lambda: len(shape.lines()) >= before + _STEPS or "BROKEN" in shape.log.read_text() or not shape.job.processes(),
        20,
        f"more lines of {shape.job}",
    )
    with suppress(AssertionError):
        return shape.steps() >= before - 1 + _STEPS
    return False
