"""Keeping the right snapshots of a run: what the policy lets go is moved into the trash, by one rename each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.files import FileTrouble, NoSpace, trouble
from ckptctl.snapshot.reclaim import reclaim
from ckptctl.snapshot.remove import exclusive, needed_folders, take_out, users_own
from ckptctl.snapshot.services import Services
from ckptctl.store import best, catalog, integrity, removal
from ckptctl.store.catalog import Entry
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.locks import Locked
from ckptctl.store.retention import Retention
from ckptctl.store.retention_judge import judge
from ckptctl.store.retention_verdict import Condition, Disk, Facts, Judgement
from ckptctl.store.selectors import NothingMatched


class NoSuchMetric(CkptctlError):
    """No snapshot of a run has the metric by which the best ones are to be kept."""

    code = "E_NO_METRIC"
    exit_status = ExitStatus.NOTHING_MATCHED


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of a run's snapshots.

    `removed` are ids; they lie in the trash at `rubbish`, where they take their space until that is deleted.
    `users_own` are folders beside them with data of the user's, which stay. `problems` are sentences.
    """

    run: str
    judgement: Judgement
    removed: tuple[str, ...] = ()
    rubbish: tuple[Path, ...] = ()
    users_own: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()


def chosen_runs(store: Store, run: str | None) -> tuple[str, ...]:
    """The runs that a policy is for, each by itself: the one named, or all. Raises NothingMatched, FileTrouble."""
    if run is None:
        return tuple(folder.name for folder in catalog.list_runs(store))
    if not catalog.list_ids(store.run(run)):
        raise NothingMatched(f"The run {run} has no snapshots.", hint="See `ckptctl list`.")
    return (run,)


def plan(store: Store, run: str, policy: Retention, services: Services, *, freed_bytes: int = 0) -> Judgement:
    """What `forget` would do; nothing is touched. `freed_bytes` counts as free: what was planned for other runs.

    Raises RetentionRefused for an empty policy, NoSuchMetric, FileTrouble.
    """
    policy.require_something()
    entries = catalog.list_snapshots(store, run)
    _require_metric(run, policy, entries)
    return _judge(store, policy, entries, services, freed_bytes)


def forget(store: Store, run: str, policy: Retention, services: Services) -> Forgotten:
    """Move what the policy does not keep into the trash; one that cannot be moved does not save the others.

    Raises RetentionRefused for an empty policy, NoSuchMetric (a name mistyped must not remove what it was to keep),
    Locked, FileTrouble, NoSpace and what the interrupt raises; every snapshot is then where it was, or whole in the
    trash.
    """
    policy.require_something()
    with exclusive(store, run, services):
        entries = catalog.list_snapshots(store, run)
        _require_metric(run, policy, entries)
        return _forget(store, run, policy, entries, services)


def apply_retention(store: Store, run: str, policy: Retention, services: Services) -> Forgotten:
    """What a supervisor does after each snapshot: forget, and delete that from the disk.

    Nothing but what the interrupt raises comes out of it: a run goes on although its old snapshots cannot be removed,
    or a limit cannot be met; `problems` says so.
    A metric that no snapshot has yet keeps nothing. An empty policy keeps everything.
    """
    if policy.is_empty:
        return Forgotten(run, Judgement(()))
    try:
        with exclusive(store, run, services):
            done = _forget(store, run, policy, catalog.list_snapshots(store, run), services)
    except (Locked, FileTrouble, NoSpace) as error:
        return Forgotten(run, Judgement(()), problems=(error.message,))
    problems = (*(one.text for one in done.judgement.unmet), *done.problems, *_delete_rubbish(done))
    if done.removed:
        reclaim(store, run, services, quick=True)
    return Forgotten(run, done.judgement, done.removed, (), done.users_own, problems)


def _delete_rubbish(forgotten: Forgotten) -> tuple[str, ...]:
    problems = []
    for path in forgotten.rubbish:
        try:
            removal.delete(path)
        except FileTrouble as error:
            problems.append(error.message)
    return tuple(problems)


def _forget(store: Store, run: str, policy: Retention, entries: Sequence[Entry], services: Services) -> Forgotten:
    folder = store.run(run)
    problems = _remember(folder, policy)
    judgement = _judge(store, policy, entries, services, 0)
    left = {entry.id: entry for entry in entries}
    rubbish: list[Path] = []
    users: list[Path] = []
    try:
        for verdict in judgement.removed:
            services.interrupt.check()
            entry = left[verdict.id]
            try:
                taken = take_out(store, entry)
            except (FileTrouble, NoSpace) as error:
                problems.append(error.message)
                continue
            del left[verdict.id]
            rubbish += taken.rubbish
            users += users_own(entry.folder)
            problems += taken.warnings
    finally:
        removal.settle(folder, list(left.values()))
    removed = tuple(entry.id for entry in entries if entry.id not in left)
    return Forgotten(run, judgement, removed, tuple(rubbish), tuple(users), tuple(problems))


def _remember(folder: RunFolder, policy: Retention) -> list[str]:
    """Remember the metric. A disk that is full does not keep anything from being removed; what then is wrong."""
    try:
        if policy.best_by is not None:
            best.remember(folder, policy.best_by)
    except NoSpace as error:
        return [error.message]
    return []


def _require_metric(run: str, policy: Retention, entries: Sequence[Entry]) -> None:
    by = policy.best_by
    known = {name for entry in entries if entry.manifest for name in entry.manifest.progress.metrics}
    if by is not None and entries and by.metric not in known:
        listed = f"they have {', '.join(sorted(known))}" if known else "they have no metrics"
        raise NoSuchMetric(
            f"No snapshot of the run {run} has the metric {by.metric}; {listed}.",
            hint="Give the metric's name as the snapshots have it, or leave --keep-best out.",
        )


def _judge(
    store: Store, policy: Retention, entries: Sequence[Entry], services: Services, freed_bytes: int
) -> Judgement:
    needed = needed_folders(services)
    facts = [_facts(entry, policy, in_use=entry.folder.path in needed) for entry in entries]
    disk = _disk(store, freed_bytes) if policy.min_free else None
    return judge(policy, facts, now=services.now(), disk=disk)


def _facts(entry: Entry, policy: Retention, *, in_use: bool) -> Facts:
    manifest = entry.manifest
    verification = entry.labels.verification if entry.labels else None
    return Facts(
        id=entry.id,
        created=entry.created,
        size_bytes=removal.disk_bytes(entry.folder.path),
        condition=_condition(entry),
        step=manifest.progress.step if manifest else None,
        epoch=manifest.progress.epoch if manifest else None,
        metrics=manifest.progress.metrics if manifest else {},
        metric_steps=manifest.progress.metric_steps if manifest else {},
        tags=frozenset(entry.tags),
        pinned=entry.pin is not None,
        verified=verification is not None and verification.sound,
        is_latest=entry.is_latest,
        is_backup=entry.is_backup,
        # A policy with a metric of its own says by itself which one is the best.
        is_best=entry.is_best and policy.best_by is None,
        in_use=in_use,
        labels_known=entry.labels is not None,
    )


def _condition(entry: Entry) -> Condition:
    """By its manifest, names and sizes, and what was found when its bytes were last read."""
    if entry.too_new:
        return Condition.TOO_NEW
    if not entry.sound:
        return Condition.DAMAGED
    try:
        damaged = any(damage.fatal for damage in integrity.verify_structure(entry.folder))
    except OSError:  # it is being removed by somebody else
        damaged = True
    return Condition.DAMAGED if damaged else Condition.SOUND


def _disk(store: Store, freed_bytes: int) -> Disk:
    try:
        usage = os.statvfs(store.path)
    except OSError as error:
        raise trouble(error, f"The free space of {store.path} cannot be seen") from error
    freeable = removal.disk_bytes(store.trash) + freed_bytes
    return Disk(usage.f_bavail * usage.f_frsize + freeable, usage.f_blocks * usage.f_frsize)
