"""Results and errors as people read them."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ckptctl.errors import CkptctlError
from ckptctl.output import stream
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ckptctl.store.manifest import Manifest

_WIDE: Final = 200
_SHORTEST_PHASE_S: Final = 0.001


def error(failure: CkptctlError) -> str:
    """What failed, what became of the job, what to do next."""
    lines = [f"ckptctl: {failure.message}"]
    output = failure.details.get("log_lines") or failure.details.get("output")
    if isinstance(output, list | tuple):
        lines += [f"  | {line}" for line in output]
    if failure.details.get("criu_log"):
        lines.append(f"  criu's log: {failure.details['criu_log']}")
    if failure.outcome:
        lines.append(f"  {failure.outcome}")
    if failure.hint:
        lines.append(f"  What to do: {failure.hint}")
    lines += [f"  {note}" for note in getattr(failure, "__notes__", ())]
    return stream.harmless("\n".join(lines)) + "\n"


def say(text: str) -> bool:
    """Print a result on standard output; False if it cannot be written there, which is said.

    A reader that has gone, as `head` does, has had what it wanted.
    """
    failure = stream.write(sys.stdout, stream.harmless(text) + "\n")
    if failure is None or isinstance(failure, BrokenPipeError):
        return True
    stream.write(sys.stderr, f"ckptctl: The result cannot be written to standard output: {failure.strerror}.\n")
    return False


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table; `columns` are titles with "left" or "right". Uncut where the output is no terminal."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in columns:
        drawn.add_column(title, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(stream.on_one_line(cell)) for cell in row))
    return _rendered(drawn)


def manifest_tree(manifest: Manifest, extra: Sequence[str]) -> str:
    """Everything that a person wants to know of a snapshot; `extra` are lines on where and how it stands."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(f"{manifest.id} of the run {manifest.run}", style="bold"))
    for line in (*extra, f"taken {manifest.created:%Y-%m-%d %H:%M:%S UTC} by ckptctl {manifest.ckptctl_version}"):
        root.add(Text(stream.on_one_line(line)))
    for title, lines in _sections(manifest):
        branch = root.add(Text(title, style="bold"))
        for line in lines:
            branch.add(Text(stream.on_one_line(line)))
    return _rendered(root)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `2 files`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def age(then: datetime, now: datetime) -> str:
    """How long ago, in two units at most: 12s, 4m05s, 2d04h. A clock that was set back makes it 0s."""
    seconds = max(int((now - then).total_seconds()), 0)
    return format_duration(seconds) if seconds >= 60 else f"{seconds}s"


def _sections(manifest: Manifest) -> list[tuple[str, list[str]]]:
    return [(title, lines) for title, lines in (
        ("progress", _progress(manifest)),
        ("timings", _timings(manifest)),
        ("memory", [
            f"resident {format_size(manifest.memory.resident_bytes)}, images {format_size(manifest.images.size_bytes)} "
            f"in {counted(len(manifest.images.files), 'file')}"
        ]),
        ("processes", [
            f"{one.pid} {one.comm} [{counted(len(one.threads), 'thread')}, {format_size(one.rss_bytes)}, {one.state}] "
            + " ".join(one.cmdline)
            for one in manifest.tree.processes
        ]),
        ("files", [
            file.path
            + ("" if file.size_bytes is None else f" at {file.position_bytes} of {file.size_bytes} bytes")
            + (", appended to" if file.append else "") + (", deleted" if file.deleted else "")
            for file in manifest.open_files
        ]),
        ("leads outside", [
            f"{end.key} of process {end.pid}, descriptor {end.fd}: {end.description}" for end in manifest.ends
        ]),
        ("listens on", [
            f"{port.transport} {port.address}:{port.port} (process {port.pid})" for port in manifest.ports
        ]),
        ("options of criu", [" ".join(option.words) + f": {option.reason}" for option in manifest.criu.options]),
        ("machine", [
            f"{manifest.host.hostname}, Linux {manifest.host.kernel}, {manifest.host.arch}, {manifest.host.cpu_model}",
            f"criu {manifest.criu.version} ({manifest.criu.path})",
        ]),
    ) if lines]  # fmt: skip


def _progress(manifest: Manifest) -> list[str]:
    progress = manifest.progress
    lines = [
        f"{name} {value}" for name, value in (("step", progress.step), ("epoch", progress.epoch)) if value is not None
    ]
    lines += [f"{name} = {value:g}" for name, value in sorted(progress.metrics.items())]
    lines += [f"tag {tag}" for tag in manifest.tags]
    return lines + ([f"note: {manifest.note}"] if manifest.note else [])


def _timings(manifest: Manifest) -> list[str]:
    timings = manifest.timings
    frozen = [f"frozen {format_duration(timings.criu.frozen_us / 1e6)}"] if timings.criu else []
    long_enough = [phase for phase in timings.phases if phase.seconds >= _SHORTEST_PHASE_S]
    return [*frozen, *(f"{phase.name} {format_duration(phase.seconds)}" for phase in long_enough)]


def _rendered(drawn: RenderableType) -> str:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _WIDE
    buffer = io.StringIO()
    Console(file=buffer, force_terminal=terminal, width=width, soft_wrap=not terminal).print(drawn)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())
