"""ckptctl list, show, verify, rm."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, QuietOpt, SnapshotArg, StoreOpt, WaitOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import ExitStatus
from ckptctl.output import text
from ckptctl.units import format_duration, format_size

if TYPE_CHECKING:
    from ckptctl.store.catalog import Entry

STATUSES: Final = "Exit status: 0 done; 2 usage; 4 no such snapshot or run; 10 store; 11 locked; 13 damaged."

RunOpt = Annotated[str | None, typer.Option("--run", metavar="NAME", help="This run only.")]
_COLUMNS: Final = (
    ("id", "left"), ("run", "left"), ("age", "right"), ("step", "right"), ("size", "right"), ("shared", "right"),
    ("frozen", "right"),
    ("state", "left"),
)  # fmt: skip


def list_(run: RunOpt = None, store: StoreOpt = None, json: JsonOpt = False, quiet: QuietOpt = False) -> int:
    """List the snapshots of the store, the oldest first."""
    from ckptctl.store.catalog import list_snapshots
    from ckptctl.store.selectors import require_run

    manner = Manner(json, quiet)
    with session(manner, store=store) as app:
        found = app.store_if_any()
        if run is not None:
            require_run(found, run)
        entries = list_snapshots(found, run) if found else ()
        place = app.settings.store
    now = datetime.now(UTC)
    where = f"{place} of the run {run}" if run else f"{place}"
    lines = [text.table(_COLUMNS, [_row(entry, now) for entry in entries]) if entries else f"No snapshots in {where}."]
    damaged = [f"{entry.id} is {_damage(entry)}: {entry.problem}" for entry in entries if entry.problem]
    lines += [text.sentences(damaged)] if damaged else []
    return emit(manner, "list", [_summary(entry) for entry in entries], "\n".join(lines))


def show(
    snapshot: SnapshotArg, run: RunOpt = None, store: StoreOpt = None, json: JsonOpt = False, quiet: QuietOpt = False
) -> int:
    """Show everything that is known of a snapshot."""
    from ckptctl.store import manifest_json
    from ckptctl.store.catalog import entry_of
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    with session(manner, store=store) as app:
        place = app.store_if_any()
        found = find(place, snapshot, run)
        manifest = manifest_json.read(found.folder.manifest)
        entry = entry_of(place, found.folder, manifest)
    result = {"folder": found.folder.path, **_standing(entry), "manifest": manifest}
    shown = dataclasses.replace(manifest, tags=entry.tags)
    return emit(manner, "show", result, text.manifest_tree(shown, [str(found.folder.path), *_standing_lines(entry)]))


def verify(
    snapshot: Annotated[str | None, typer.Argument(metavar="[SNAPSHOT]", help="One snapshot; all without it.")] = None,
    read_data: Annotated[
        bool, typer.Option("--read-data", help="Read every byte and compare it with its digest.")
    ] = False,
    run: RunOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """See whether snapshots are sound.

    Looks at manifest, files and sizes; with --read-data at every byte.
    """
    from ckptctl.snapshot.verify import verify as check
    from ckptctl.store.catalog import list_snapshots
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    with session(manner, store=store) as app:
        place = app.store_if_any()
        if snapshot is not None:
            folders = [find(place, snapshot, run).folder]
        else:
            folders = [entry.folder for entry in (list_snapshots(place, run) if place else ())]
        verdicts = [check(folder, read_data=read_data, services=app.services) for folder in folders]
    sound = all(verdict.sound for verdict in verdicts)
    words = text.sentences(line for verdict in verdicts for line in verdict.lines) or "No snapshots to verify."
    return emit(manner, "verify", verdicts, words, ExitStatus.DONE if sound else ExitStatus.INTEGRITY)


def rm(
    snapshot: SnapshotArg,
    force: Annotated[bool, typer.Option("--force", help="Remove even the last sound snapshot of a run.")] = False,
    run: RunOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Delete a snapshot for good, and give its space back.

    Nothing brings it back. `ckptctl forget` moves what it removes into the trash.
    """
    from ckptctl.snapshot.remove import remove

    manner = Manner(json, quiet)
    with session(manner, store=store, lock_wait=lock_wait) as app:
        removed = remove(app.existing_store(), snapshot, run, force=force, services=app.services)
    lines = [f"{removed.id} of the run {removed.run} is deleted for good."]
    lines += [f"  kept, since it is data of the job and not of the snapshot: {path}" for path in removed.kept]
    lines += [f"  warning: {warning}" for warning in removed.warnings]
    return emit(manner, "rm", removed, text.sentences(lines))


def _row(entry: Entry, now: datetime) -> list[str]:
    manifest = entry.manifest
    step = manifest.progress.step if manifest else None
    criu = manifest.timings.criu if manifest else None
    return [
        entry.id,
        entry.run,
        text.age(entry.created, now),
        "" if step is None else str(step),
        format_size(manifest.images.size_bytes) if manifest else "",
        format_size(manifest.images.shared_bytes) if manifest and manifest.images.shared_bytes else "",
        format_duration(criu.frozen_us / 1e6) if criu else "",
        _state(entry),
    ]


def _summary(entry: Entry) -> dict[str, object]:
    manifest = entry.manifest
    return {
        "id": entry.id,
        "run": entry.run,
        "folder": entry.folder.path,
        "created": entry.created,
        **_standing(entry),
        "sound": entry.sound,
        "problem": entry.problem,
        "step": manifest.progress.step if manifest else None,
        "epoch": manifest.progress.epoch if manifest else None,
        "metrics": dict(manifest.progress.metrics) if manifest else {},
        "metric_steps": dict(manifest.progress.metric_steps) if manifest else {},
        "size_bytes": manifest.images.size_bytes if manifest else None,
        "contents_bytes": manifest.images.contents_bytes if manifest else None,
        "shared_bytes": manifest.images.shared_bytes if manifest else None,
        "frozen_us": manifest.timings.criu.frozen_us if manifest and manifest.timings.criu else None,
        "ended": manifest.ended if manifest else None,
    }


def _standing(entry: Entry) -> dict[str, object]:
    """What it is to its run, and what was said of it after its dump."""
    return {
        "latest": entry.is_latest,
        "backup": entry.is_backup,
        "best": entry.is_best,
        "tags": entry.tags,
        "pin": entry.pin,
        "verification": entry.labels.verification if entry.labels else None,
    }


def _standing_lines(entry: Entry) -> list[str]:
    lines = [", ".join(_links(entry))] if _links(entry) else []
    if entry.labels is None:
        lines.append("its labels cannot be read: it may be pinned, or have other tags")
    if entry.pin is not None:
        because = f": {entry.pin.reason}" if entry.pin.reason else ""
        lines.append(f"pinned {entry.pin.since:%Y-%m-%d %H:%M:%S UTC}{because}")
    verification = entry.labels.verification if entry.labels else None
    if verification is not None:
        outcome = "every byte was right" if verification.sound else "DAMAGED"
        lines.append(f"verified {verification.at:%Y-%m-%d %H:%M:%S UTC}: {outcome}")
    return lines


def _links(entry: Entry) -> list[str]:
    links = (("latest", entry.is_latest), ("backup", entry.is_backup), ("best", entry.is_best))
    return [word for word, holds in links if holds]


def _state(entry: Entry) -> str:
    """Each tag is written as a selector, to be copied."""
    marks = [*_links(entry), *(["pinned"] if entry.pin else []), *(f"tag:{tag}" for tag in entry.tags)]
    if not entry.sound:
        marks.insert(0, _damage(entry))
    return ", ".join(marks) or "complete"


def _damage(entry: Entry) -> str:
    return "too new" if entry.too_new else "damaged"
