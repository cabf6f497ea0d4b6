"""What Lightning's CSVLogger writes: version_3/metrics.csv, a table of which each row fills some columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from ckptctl.progress import values
from ckptctl.progress.source import Unreadable, Version, newest, read_part
from ckptctl.progress.values import Found
from ckptctl.store.manifest import Progress

_PATTERNS: Final = ("metrics.csv", "version_*/metrics.csv", "lightning_logs/version_*/metrics.csv")
_LARGEST_HEADER_BYTES: Final = 64 << 10
# Of a long table the end is enough: each metric is there as long as it is measured now and then.
_TAIL_BYTES: Final = 1 << 20


class MetricsCsv:
    """The newest of these tables in a logger's folder, or in the one above it."""

    name: Final = "metrics.csv"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = f"below {folder}"
        self._seen: tuple[Path, Version] | None = None
        self._progress = Progress()

    def read(self) -> Progress:
        """See Source."""
        found = newest(self.folder, *_PATTERNS)
        if found is None:
            self._seen, self._progress = None, Progress()
        elif found != self._seen:
            path, now = found
            start = max(0, now.size_bytes - _TAIL_BYTES)
            header = read_part(path, 0, _LARGEST_HEADER_BYTES)
            self._progress = parse(header, read_part(path, start, _TAIL_BYTES))
            self._seen = found
        return self._progress


def parse(beginning: bytes, rows: bytes) -> Progress:
    """What a metrics.csv tells, of which `beginning` has the names and `rows` the last rows, or all that there is.

    The first line of `rows` is the header or cut off, the last one may still be being written: neither counts.
    Raises Unreadable.
    """
    header, newline, _ = beginning.partition(b"\n")
    if not newline:
        if len(beginning) >= _LARGEST_HEADER_BYTES:
            raise Unreadable("its first line is no header of a table")
        return Progress()  # just being written
    names = _cells(header)
    if "step" not in names:
        raise Unreadable("it has no column `step`")
    progress = Progress(source=MetricsCsv.name)
    for line in rows[: rows.rfind(b"\n") + 1].split(b"\n")[1:-1]:
        cells = _cells(line)
        if len(cells) == len(names):
            progress = values.advance(progress, _found(dict(zip(names, cells, strict=True))))
    return progress


def _found(row: dict[str, str]) -> Found:
    pairs = ((name, cell) for name, cell in row.items() if name not in {"step", "epoch"} and cell)
    return Found(values.whole(row["step"]), values.whole(row.get("epoch")), values.metrics(pairs))


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode(errors="replace").strip("\r")]), [])
    except csv.Error:
        return []
