"""What a user types to name a snapshot, and the snapshot that it means."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.store import best, links
from ckptctl.store.best import BestBy, Mode
from ckptctl.store.catalog import Entry, best_entry, list_ids, list_runs, list_snapshots
from ckptctl.store.layout import RunFolder, SnapshotFolder, Store
from ckptctl.store.names import check_run_name, is_run_name

_LATEST: Final = re.compile(r"latest(?:~(\d{1,6}))?", re.ASCII)
_FIELD: Final = re.compile(r"(tag|step|epoch):(.+)", re.DOTALL)
_ID_PREFIX: Final = re.compile(r"[0-9TZs-]{4,}[0-9a-f]*", re.ASCII)
_BEST: Final = re.compile(r"best(?::(.+?)(?::(min|max))?)?", re.DOTALL)
_FORMS: Final = (
    "A folder, latest, latest~1, backup, best, best:METRIC, RUN/latest, an id or its beginning, RUN/ID, tag:T, step:N, "
    "epoch:N."
)


class NothingMatched(CkptctlError):
    """A selector names no snapshot."""

    code = "E_NOTHING_MATCHED"
    exit_status = ExitStatus.NOTHING_MATCHED


class Ambiguous(CkptctlError):
    """A selector could mean snapshots of several runs, or several ids begin so."""

    code = "E_AMBIGUOUS"
    exit_status = ExitStatus.NOTHING_MATCHED


@dataclass(frozen=True, slots=True)
class Found:
    """The snapshot that a selector means; run and id are None for a folder outside of the store.

    `by_link` is true where nobody named this very snapshot (`latest`): if it is damaged, `backup` may be taken.
    `of_runs` is the number of runs whose newest snapshots it was chosen from.
    """

    folder: SnapshotFolder
    run: str | None = None
    id: str | None = None
    by_link: bool = False
    of_runs: int = 1

    def __str__(self) -> str:
        return f"{self.id} of the run {self.run}" if self.id else os.fspath(self.folder.path)


def find(store: Store | None, selector: str, run: str | None = None) -> Found:
    """The snapshot that `selector` means, in one run where `run` names it.

    `latest` is the newest of all runs, and `latest~1` and `backup` belong to that same run. `tag:`, `step:` and
    `epoch:` mean the newest that fits, `best` the best by the metric that the run's retention was told. They are
    refused where several runs have one: a restore of the wrong job would be worse than a question.
    Raises NothingMatched, Ambiguous, UsageError, names.BadRunName, files.FileTrouble.
    """
    if _is_folder(selector):
        return Found(SnapshotFolder(Path(selector).absolute()))
    if selector.startswith(("/", "./", "../")) and Path(selector).is_dir():
        raise NothingMatched(f"The folder {selector} holds no snapshot.", hint="Name one that was given to --to.")
    if store is None:
        raise NothingMatched(
            f"There is no snapshot {selector!r}: there is no store yet, and no folder of that name holds one.",
            hint="The first dump creates the store; where another one is meant, name it with --store.",
        )
    front, slash, rest = selector.rpartition("/")
    if slash and run is None and is_run_name(front):
        run, selector = front, rest
    runs = list_runs(store) if run is None else (store.run(run),)
    where = f"the run {run}" if run else f"the store {store.path}"
    return (
        _by_position(runs, selector, where)
        or _by_field(store, runs, selector, where)
        or _by_metric(store, runs, selector, where)
        or _by_id(runs, selector, where)
    )


def require_run(store: Store | None, run: str) -> None:
    """Raise NothingMatched where the store has no such run; BadRunName, files.FileTrouble."""
    names = [one.name for one in list_runs(store)] if store else []
    if check_run_name(run) not in names:
        known = f"Those that there are: {', '.join(names)}." if names else "The first dump or `ckptctl run` makes one."
        raise NothingMatched(f"There is no run {run}.", hint=known)


def _is_folder(selector: str) -> bool:
    """Whether it is the path of a snapshot. The words of a selector win over a folder that is called so."""
    if "\0" in selector or selector in {"backup", "best"} or _LATEST.fullmatch(selector):
        return False
    return os.path.lexists(SnapshotFolder(Path(selector)).manifest)


def _by_position(runs: Sequence[RunFolder], selector: str, where: str) -> Found | None:
    match = _LATEST.fullmatch(selector)
    if match is None and selector != "backup":
        return None
    newest = [(latest, run) for run in runs if (latest := _latest(run))]
    if not newest:
        raise NothingMatched(f"There is no snapshot in {where}.", hint="See `ckptctl list`.")
    latest, run = max(newest, key=lambda pair: pair[0])
    if match is None:
        chosen = links.target(run, run.backup)
    else:
        older = [name for name in list_ids(run) if name <= latest]
        back = int(match.group(1) or 0)
        chosen = older[-1 - back] if back < len(older) else None
    if chosen is None:
        raise NothingMatched(f"The run {run.name} has no {selector}.", hint=f"See `ckptctl list --run {run.name}`.")
    return Found(run.snapshot(chosen), run.name, chosen, by_link=selector == "latest", of_runs=len(newest))


def _latest(run: RunFolder) -> str | None:
    ids = list_ids(run)
    return links.target(run, run.latest) or (ids[-1] if ids else None)


def _by_field(store: Store, runs: Sequence[RunFolder], selector: str, where: str) -> Found | None:
    match = _FIELD.fullmatch(selector)
    if match is None:
        return None
    fits = _test(match.group(1), match.group(2))
    fitting = [entry for run in runs for entry in list_snapshots(store, run.name) if fits(entry)]
    if not fitting:
        raise NothingMatched(f"No snapshot in {where} has {selector}.", hint="See `ckptctl list`.")
    _refuse_several_runs(selector, sorted({entry.run for entry in fitting}))
    newest = fitting[-1]
    return Found(newest.folder, newest.run, newest.id)


def _test(field: str, value: str) -> Callable[[Entry], bool]:
    if field == "tag":
        return lambda entry: value in entry.tags
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise NothingMatched(f"{value!r} is not a number of a {field}.", hint=f"Write {field}:12000.")
    number = int(value)
    if field == "step":
        return lambda entry: entry.manifest is not None and entry.manifest.progress.step == number
    return lambda entry: entry.manifest is not None and entry.manifest.progress.epoch == number


def _by_metric(store: Store, runs: Sequence[RunFolder], selector: str, where: str) -> Found | None:
    match = _BEST.fullmatch(selector)
    if match is None:
        return None
    named = BestBy.of(match.group(1), Mode(match.group(2)) if match.group(2) else None) if match.group(1) else None
    found = [entry for run in runs if (entry := _best_of(list_snapshots(store, run.name), named or _usual(store, run)))]
    if not found:
        raise NothingMatched(
            f"No snapshot in {where} has a value of {named.metric}."
            if named
            else f"No snapshot in {where} has a metric.",
            hint="See `ckptctl list`, and `ckptctl show` for the metrics of a snapshot.",
        )
    _refuse_several_runs(selector, sorted(entry.run for entry in found))
    return Found(found[0].folder, found[0].run, found[0].id)


def _best_of(entries: Sequence[Entry], by: BestBy | None) -> Entry | None:
    return best_entry(entries, by) if by else None


def _usual(store: Store, run: RunFolder) -> BestBy | None:
    """By which metric a snapshot is the best in this run: the one that was told, or the only one that there is.

    Raises Ambiguous where there are several, UsageError where the only one does not tell which values are better.
    """
    told = best.remembered(run)
    if told is not None:
        return told
    manifests = [entry.manifest for entry in list_snapshots(store, run.name) if entry.manifest]
    metrics = sorted({metric for manifest in manifests for metric in manifest.progress.metrics})
    if len(metrics) > 1:
        raise Ambiguous(
            f"The snapshots of the run {run.name} have several metrics: {', '.join(metrics)}.",
            hint=f"Say which: best:{metrics[0]}",
            details={"metrics": metrics},
        )
    return BestBy.of(metrics[0]) if metrics else None


def _by_id(runs: Sequence[RunFolder], selector: str, where: str) -> Found:
    matches = [(run, name) for run in runs for name in list_ids(run) if selector and name.startswith(selector)]
    exact = [pair for pair in matches if pair[1] == selector]
    if not matches:
        hint = "See `ckptctl list`." if _ID_PREFIX.fullmatch(selector) else _FORMS
        raise NothingMatched(f"No snapshot in {where} is called {selector!r}.", hint=hint)
    _refuse_several_runs(selector, sorted({run.name for run, _ in exact}))
    if len(matches) > 1 and not exact:
        raise Ambiguous(
            f"{len(matches)} snapshots have an id that begins with {selector!r}.",
            hint="Give more of the id.",
            details={"ids": [name for _, name in matches]},
        )
    run, name = (exact or matches)[0]
    return Found(run.snapshot(name), run.name, name)


def _refuse_several_runs(selector: str, runs: Sequence[str]) -> None:
    if len(runs) > 1:
        raise Ambiguous(
            f"{selector!r} fits snapshots of several runs: {', '.join(runs)}.",
            hint=f"Say which: {runs[0]}/{selector}",
            details={"runs": list(runs)},
        )
