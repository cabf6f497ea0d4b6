"""What leads out of a tree, pipes and terminals: found at the dump, given a new other side at the restore."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import command, files
from ckptctl.criu.options import Options
from ckptctl.criu.records import Images, Pipe, Terminal, TerminalKind
from ckptctl.criu.restore import InheritedFd
from ckptctl.process.tree import Tree
from ckptctl.store.manifest import Direction, End, EndKind

_EXTERNAL: Final = "--external"
_KEEPER: Final = Path(__file__).with_name("terminal_keeper.py")


@dataclass(frozen=True, slots=True)
class Connected:
    """An end that was given a new other side; `where` says which, for people."""

    end: End
    where: str

    @property
    def sentence(self) -> str:
        """What was done, for people."""
        end = self.end
        return f"{end.key} of process {end.pid}, which led to {end.description}, now leads to {self.where}."


@dataclass(frozen=True, slots=True)
class Sides:
    """The other sides of all ends: for criu, and for people."""

    inherited: tuple[InheritedFd, ...]
    connected: tuple[Connected, ...]


def found(images: Images, tree: Tree, options: Options) -> tuple[End, ...]:
    """Every descriptor of the images whose other side is outside the tree and must be replaced at the restore."""
    outside = {pipe.name: pipe.outside for pipe in tree.pipes}
    ends = []
    for pipe in images.open_files.external_pipes:
        holder = outside.get(pipe.key)
        description = f"process {holder.pid} ({holder.comm})" if holder else "nobody that could be found"
        ends += _pipe_ends(pipe, description)
    keys = [option.value for option in options.chosen if option.flag == _EXTERNAL and option.value is not None]
    for key in keys:
        ends += _terminal_ends(key, images.open_files.terminals)
    return tuple(ends)


def _pipe_ends(pipe: Pipe, description: str) -> list[End]:
    return [
        End(
            kind=EndKind.PIPE,
            key=pipe.key,
            pid=use.pid,
            fd=use.fd,
            direction=Direction.WRITE if end.can_write else Direction.READ,
            description=description,
        )
        for end in pipe.ends
        for use in end.uses
    ]


def _terminal_ends(key: str, terminals: Sequence[Terminal]) -> list[End]:
    """CRIU names an external terminal by its device numbers, in hexadecimal: tty[RDEV:DEV] (criu/tty.c)."""
    if not key.startswith("tty["):
        return []
    device = int(key.removeprefix("tty[").partition(":")[0], 16)
    return [
        End(EndKind.TTY, key, use.pid, use.fd, Direction.BOTH, "the terminal that the job was started from")
        for item in terminals
        if item.kind is TerminalKind.EXTERNAL and item.device == device
        for use in item.uses
    ]


@contextmanager
def reconnected(ends: Sequence[End], output: Path, *, attached: bool) -> Iterator[Sides]:
    """Open a new other side for every end, for the time of the restore.

    `attached`: ckptctl stays with the job, which then writes to ckptctl's own standard output and error. Otherwise what
    the job writes is appended to files in the folder `output` (created when needed), and it reads nothing.
    """
    with ExitStack() as held:
        inherited: list[InheritedFd] = []
        connected: list[Connected] = []
        for key in dict.fromkeys(end.key for end in ends):
            same = [end for end in ends if end.key == key]
            fd, where = _open_side(same, output, held, attached=attached)
            inherited.append(InheritedFd(fd, key))
            connected.append(Connected(same[0], where))
        yield Sides(tuple(inherited), tuple(connected))


def _open_side(ends: Sequence[End], output: Path, held: ExitStack, *, attached: bool) -> tuple[int, str]:
    """A descriptor of ours to stand in for the outside, closed when the restore is over, and what it leads to."""
    first = ends[0]
    name = f"{first.kind.value}-{first.pid}-fd{first.fd}.log"
    if first.kind is EndKind.TTY:
        return _open_terminal(None if attached else _log(output, name), held)
    if first.direction is Direction.READ:
        return _held(held, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)), "nothing: it reads the end of the file"
    if attached:
        # A job that wrote its errors to the same pipe as its output has only one stream of ours to go to.
        standard = 2 if all(end.fd == 2 for end in ends) else 1
        return _held(held, os.dup(standard)), "this terminal or wherever ckptctl writes to"
    path = _log(output, name)
    return _held(held, _open_log(path)), str(path)


def _open_terminal(log: Path | None, held: ExitStack) -> tuple[int, str]:
    """A new terminal for the job, and a small program that passes on what the job writes to it until the job ends."""
    master, slave = os.openpty()
    held.callback(os.close, slave)
    try:
        keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(master)]
        command.start(keeper, output=log, pass_fds=[master]).close()
    finally:
        os.close(master)
    return slave, f"a new terminal, kept in {log}" if log else "a new terminal, shown here"


def _log(output: Path, name: str) -> Path:
    files.make_private_folder(output)
    return output / name


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PRIVATE_FILE)


def _held(held: ExitStack, descriptor: int) -> int:
    held.callback(os.close, descriptor)
    return descriptor
