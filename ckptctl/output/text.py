"""Results and errors as people read them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ckptctl.errors import CkptctlError
from ckptctl.output import stream
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from ckptctl.store.manifest import CudaTiming, Gpu, Manifest

_SHORTEST_PHASE_S: Final = 0.001
_BELOW: Final = "    "
# Steps whose names would be taken for something else.
_STEPS: Final = {"freeze": "freeze (all of criu's work, with its start and end)"}


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
    width = stream.columns(sys.stderr)
    # What another program said stays as it is.
    shown = [line if line.startswith("  |") else stream.wrapped(line, width) for line in lines]
    return stream.harmless("\n".join(shown)) + "\n"


def sentences(lines: Iterable[str]) -> str:
    """Lines for standard output, wrapped where that is a terminal."""
    width = stream.columns(sys.stdout)
    return "\n".join(stream.wrapped(line, width) for line in lines)


def say(text: str) -> bool:
    """Print a result on standard output; False if it cannot be written there, which is said.

    A reader that has gone, as `head` does, has had what it wanted.
    """
    failure = stream.write(sys.stdout, stream.harmless(text) + "\n")
    if failure is None or isinstance(failure, BrokenPipeError):
        return True
    stream.write(sys.stderr, f"ckptctl: The result cannot be written to standard output: {failure.strerror}.\n")
    return False


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], *, cut: bool = False) -> str:
    """A table; `columns` are titles with "left" or "right"; those with nothing in them are left out.

    Nothing is cut, for what it shows is there to be copied: on a terminal, the last cell of a row that is too long goes
    on below it. With `cut`, rows end with the line of a terminal.
    """
    width = stream.columns(sys.stdout)
    cells = [[stream.on_one_line(cell) for cell in row] for row in rows]
    used = [number for number in range(len(columns)) if any(row[number] for row in cells)]
    sides = [columns[number][1] for number in used]
    lines = [[row[number] for number in used] for row in ([title for title, _ in columns], *cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    end = _cut_off if cut else _carried_over
    return "\n".join(end(_row(line, widths, sides), len(line[-1]), width) for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int], sides: Sequence[str]) -> str:
    padded = (
        cell.rjust(size) if side == "right" else cell.ljust(size)
        for cell, size, side in zip(cells, widths, sides, strict=True)
    )
    return "  ".join(padded).rstrip()


def _cut_off(line: str, _last: int, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 3]}..."


def _carried_over(line: str, last: int, width: int | None) -> str:
    """The row of a table, its last cell (of this length) on lines of its own where it is too long."""
    if width is None or len(line) <= width or not last:
        return line
    below = stream.wrapped(_BELOW + line[-last:], width, indent="")
    return f"{line[:-last].rstrip()}\n{below}"


def manifest_tree(manifest: Manifest, extra: Sequence[str]) -> str:
    """Everything that a person wants to know of a snapshot; `extra` are lines on where and how it stands."""
    taken = f"taken {manifest.created:%Y-%m-%d %H:%M:%S UTC} by ckptctl {manifest.ckptctl_version}"
    branches = [*((line, ()) for line in (*extra, taken)), *_sections(manifest)]
    width = stream.columns(sys.stdout)
    return "\n".join([f"{manifest.id} of the run {manifest.run}", *_tree(branches, width)])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `2 files`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def stored(own_bytes: int, contents_bytes: int, shared_bytes: int) -> str:
    """What a snapshot takes, and what for: `1.20 GiB of 4.00 GiB, 2.50 GiB of which were stored already`."""
    if not shared_bytes:
        return format_size(own_bytes)
    already = f"{format_size(shared_bytes)} of which were stored already"
    return f"{format_size(own_bytes)} for {format_size(contents_bytes)}, {already}"


def gpu_timings(timings: Iterable[CudaTiming]) -> list[str]:
    """A line for each GPU process, in the order in which they were locked: its actions with their times and rates."""
    by_process: dict[int, list[str]] = {}
    for one in timings:
        rate = f" ({format_size(round(one.bytes_per_second))}/s)" if one.bytes_per_second else ""
        by_process.setdefault(one.pid, []).append(f"{one.action} {format_duration(one.seconds)}{rate}")
    return [f"GPU memory of process {pid}: {', '.join(actions)}" for pid, actions in by_process.items()]


def age(then: datetime, now: datetime) -> str:
    """How long ago, in two units at most: 12s, 4m05s, 2d04h. A clock that was set back makes it 0s."""
    seconds = max(int((now - then).total_seconds()), 0)
    return format_duration(seconds) if seconds >= 60 else f"{seconds}s"


def _sections(manifest: Manifest) -> list[tuple[str, list[str]]]:
    return [(title, lines) for title, lines in (
        ("progress", _progress(manifest)),
        ("timings", _timings(manifest)),
        ("memory", _memory(manifest)),
        ("GPU", _gpu(manifest.gpu) if manifest.gpu else []),
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
    for name, value in sorted(progress.metrics.items()):
        step = progress.metric_steps.get(name)
        elsewhere = "" if step in {None, progress.step} else f", measured at step {step}"
        lines.append(f"{name} = {value:g}{elsewhere}")
    lines += [f"tag {tag}" for tag in manifest.tags]
    return lines + ([f"note: {manifest.note}"] if manifest.note else [])


def _memory(manifest: Manifest) -> list[str]:
    images, memory = manifest.images, manifest.memory
    files = len(images.files) + (images.container is not None)
    lines = [
        f"resident {format_size(memory.resident_bytes)}, images {format_size(images.size_bytes)} "
        f"in {counted(files, 'file')}"
    ]
    if images.container is not None:
        found = images.container
        lines.append(
            f"pages {format_size(found.contents_bytes)}: {format_size(found.zero_bytes)} are zeros, "
            f"{format_size(found.shared_bytes)} were stored already, the rest takes {format_size(found.size_bytes)} "
            f"(compression {found.compression})"
        )
        if found.packs:
            lines.append(f"linked to the containers of {counted(len(found.packs), 'earlier snapshot')}")
    return lines


def _gpu(gpu: Gpu) -> list[str]:
    indices = {one.uuid: f"GPU {one.index} ({one.model})" for one in gpu.gpus}
    return [
        *(f"process {one.pid}: {format_size(one.size_bytes)} on {indices[one.uuid]} {one.uuid}" for one in gpu.memory),
        *gpu_timings(gpu.timings),
        f"driver {gpu.driver or 'unknown'}; {gpu.method}",
    ]


def _timings(manifest: Manifest) -> list[str]:
    timings = manifest.timings
    frozen = [f"the job stood still for {format_duration(timings.criu.frozen_us / 1e6)}"] if timings.criu else []
    long_enough = [phase for phase in timings.phases if phase.seconds >= _SHORTEST_PHASE_S]
    return [
        *frozen,
        *(f"{_STEPS.get(phase.name, phase.name)} {format_duration(phase.seconds)}" for phase in long_enough),
    ]


def _tree(branches: Sequence[tuple[str, Sequence[str]]], width: int | None) -> Iterator[str]:
    """The lines of a tree of titles with leaves, wrapped to `width` columns, or not at all."""
    for title, leaves, last in _with_last(branches):
        yield from _branch(title, "", last, width)
        below = "    " if last else "│   "
        for leaf, _, last_leaf in _with_last([(leaf, ()) for leaf in leaves]):
            yield from _branch(leaf, below, last_leaf, width)


def _with_last(branches: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[str, Sequence[str], bool]]:
    for number, (title, leaves) in enumerate(branches, start=1):
        yield title, leaves, number == len(branches)


def _branch(text: str, indent: str, last: bool, width: int | None) -> Iterator[str]:
    lines = [stream.on_one_line(text)]
    if width is not None:
        room = max(width - len(indent) - 4, 20)
        # Paths and ids stay whole, to be copied; the terminal breaks them where it must.
        lines = textwrap.wrap(lines[0], room, break_long_words=False, break_on_hyphens=False) or lines
    yield f"{indent}{'└── ' if last else '├── '}{lines[0]}"
    for line in lines[1:]:
        yield f"{indent}{'    ' if last else '│   '}{line}"
