"""ckptctl forget, prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.groups import grouped
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import JsonOpt, QuietOpt, StoreOpt, WaitOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.output import text
from ckptctl.units import format_size

if TYPE_CHECKING:
    from ckptctl.app import App
    from ckptctl.snapshot.prune import Pruned, Rubbish
    from ckptctl.snapshot.retention import Forgotten
    from ckptctl.store.retention import Retention
    from ckptctl.store.retention_verdict import Verdict

STATUSES: Final = (
    "Exit status: 0 done; 2 usage; 3 something could not be removed, or a limit not be met; 4 no such run or metric; "
    "10 store; 11 locked; 130, 143 interrupted."
)

_COLUMNS: Final = (
    ("id", "left"), ("age", "right"), ("step", "right"), ("on disk", "right"), ("verdict", "left"), ("reasons", "left"),
)  # fmt: skip
DryRunOpt = Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would be removed, and remove nothing.")]


@grouped
def forget(
    keep: KeepOptions,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="This run only; else every run, each by itself.")
    ] = None,
    dry_run: DryRunOpt = False,
    prune: Annotated[bool, typer.Option("--prune", help="Then give the space back, as `ckptctl prune` does.")] = False,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Remove the snapshots that no rule keeps.

    A snapshot stays if any rule keeps it. Always kept are latest and backup, the best one, pinned ones, the newest
    sound and the newest verified one. What is removed lies in the trash until `ckptctl prune`.
    """
    from ckptctl.snapshot.prune import prune as give_back

    manner = Manner(json, quiet)
    policy = keep.retention()
    policy.require_something()
    with session(manner, store=store, lock_wait=lock_wait) as app:
        done = _every_run(app, run, policy, dry_run=dry_run)
        pruned = give_back(app.existing_store(), tails=False, dry_run=dry_run, services=app.services) if prune else None
    lines = [line for one in done for line in _lines(one, dry_run=dry_run)] or ["No snapshots to forget."]
    lines = [*map(_sentence, _too_little_free(done)), *lines]
    if pruned is not None:
        lines += _pruned_lines(pruned, dry_run=dry_run)
        lines += ["What is to be removed by the rules would be deleted, too."] if dry_run else []
    elif not dry_run and any(one.forgotten and one.forgotten.removed for one in done):
        lines.append("They lie in the trash and take their space until `ckptctl prune`.")
    failed = any(one.failed for one in done) or (pruned is not None and pruned.problems)
    result = {"dry_run": dry_run, "runs": [_run_result(one) for one in done], "pruned": pruned and _pruned(pruned)}
    return emit(manner, "forget", result, "\n".join(lines), ExitStatus.PARTIAL if failed else ExitStatus.DONE)


def prune(
    tails: Annotated[
        bool,
        typer.Option("--tails", help="Delete also what restores cut from the job's files, where the snapshot is gone."),
    ] = False,
    dry_run: DryRunOpt = False,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Delete for good what `forget` and killed dumps left.

    Data of the job's own that lies beside a removed snapshot stays, and is named.
    """
    from ckptctl.snapshot.prune import prune as give_back

    manner = Manner(json, quiet)
    with session(manner, store=store, lock_wait=lock_wait) as app:
        pruned = give_back(app.existing_store(), tails=tails, dry_run=dry_run, services=app.services)
    status = ExitStatus.PARTIAL if pruned.problems else ExitStatus.DONE
    result = {"dry_run": dry_run, **_pruned(pruned)}
    return emit(manner, "prune", result, text.sentences(_pruned_lines(pruned, dry_run=dry_run)), status)


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of one run, or why nothing did."""

    run: str
    forgotten: Forgotten | None = None
    error: CkptctlError | None = None

    @property
    def failed(self) -> bool:
        done = self.forgotten
        return self.error is not None or (done is not None and bool(done.problems or done.judgement.unmet))


def _every_run(app: App, run: str | None, policy: Retention, *, dry_run: bool) -> list[_Done]:
    """Apply the policy to each run by itself; what goes wrong with one of several does not keep the others from it."""
    from ckptctl.files import FileTrouble, NoSpace
    from ckptctl.snapshot.retention import Forgotten, NoSuchMetric, chosen_runs, plan
    from ckptctl.snapshot.retention import forget as apply
    from ckptctl.store.locks import Locked

    store, done, freed_bytes = app.existing_store(), list[_Done](), 0
    for name in chosen_runs(store, run):
        try:
            if dry_run:
                judgement = plan(store, name, policy, app.services, freed_bytes=freed_bytes)
                freed_bytes += judgement.freed_bytes
                done.append(_Done(name, Forgotten(name, judgement)))
            else:
                done.append(_Done(name, apply(store, name, policy, app.services)))
        except (NoSuchMetric, Locked, FileTrouble, NoSpace) as error:
            if run is not None:
                raise
            done.append(_Done(name, error=error))
    return done


def _lines(done: _Done, *, dry_run: bool) -> list[str]:
    if done.forgotten is None:
        return [_sentence(f"run {done.run}: nothing is removed. {done.error.message if done.error else ''}"), ""]
    forgotten, now = done.forgotten, datetime.now(UTC)
    judgement = forgotten.judgement
    if not judgement.verdicts:
        return []
    from ckptctl.store.retention_verdict import Rule

    verb = "would remove" if dry_run else "removed"
    number = len(judgement.removed) if dry_run else len(forgotten.removed)
    freed = sum(one.facts.size_bytes for one in judgement.removed if dry_run or one.id in forgotten.removed)
    return [
        f"run {done.run}: {verb} {number} of {text.counted(len(judgement.verdicts), 'snapshot')}, {format_size(freed)}",
        text.table(_COLUMNS, [_row(verdict, now) for verdict in judgement.verdicts]),
        *(_sentence(one.text) for one in judgement.unmet if one.rule is not Rule.MIN_FREE),
        *map(_sentence, forgotten.problems),
        *(
            _sentence(f"kept, since it is data of the job and not of the snapshot: {path}")
            for path in forgotten.users_own
        ),
        "",
    ]


def _sentence(line: str) -> str:
    return text.sentences([line])


def _too_little_free(done: Sequence[_Done]) -> list[str]:
    """What --min-free misses, once: all runs share the disk, and the last one counts what the others gave up."""
    from ckptctl.store.retention_verdict import Rule

    judged = [one.forgotten.judgement for one in done if one.forgotten and one.forgotten.judgement.verdicts]
    return [one.text for one in (judged[-1].unmet if judged else ()) if one.rule is Rule.MIN_FREE]


def _row(verdict: Verdict, now: datetime) -> list[str]:
    facts = verdict.facts
    return [
        facts.id,
        text.age(facts.created, now),
        "" if facts.step is None else str(facts.step),
        format_size(facts.size_bytes),
        "keep" if verdict.kept else "remove",
        ", ".join(reason.text for reason in verdict.reasons),
    ]


def _run_result(done: _Done) -> dict[str, object]:
    forgotten = done.forgotten
    if forgotten is None:
        error = done.error
        return {"run": done.run, "error": error and {"code": error.code, "message": error.message, "hint": error.hint}}
    judgement = forgotten.judgement
    return {
        "run": done.run,
        "keep": [_verdict(verdict) for verdict in judgement.kept],
        "remove": [_verdict(verdict) for verdict in judgement.removed],
        "removed": forgotten.removed,
        "unmet": [one.text for one in judgement.unmet],
        "problems": forgotten.problems,
        "users_own": forgotten.users_own,
        "error": None,
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    facts = verdict.facts
    return {
        "id": facts.id,
        "created": facts.created,
        "step": facts.step,
        "epoch": facts.epoch,
        "size_bytes": facts.size_bytes,
        "reasons": [{"rule": reason.rule, "text": reason.text} for reason in verdict.reasons],
    }


def _pruned(pruned: Pruned) -> dict[str, object]:
    return {
        "freed_bytes": pruned.freed_bytes,
        "reclaimed_bytes": pruned.reclaimed_bytes,
        "deleted": pruned.deleted,
        "left": pruned.left,
        "problems": pruned.problems,
    }


def _pruned_lines(pruned: Pruned, *, dry_run: bool) -> list[str]:
    verb = "Would delete" if dry_run else "Deleted"
    head = f"{verb} {text.counted(len(pruned.deleted), 'folder')}, {format_size(pruned.freed_bytes)}."
    shared = pruned.reclaimed_bytes
    return [
        head if pruned.deleted or shared else "Nothing to delete.",
        *(f"  {line}" for line in _named(pruned.deleted)),
        *([f"  {format_size(pruned.reclaimed_bytes)} of it in containers that snapshots share"] if shared else []),
        *(f"  left, since it is data of the job: {line}" for line in _named(pruned.left)),
        *(f"  {problem}" for problem in pruned.problems),
    ]


def _named(rubbish: Sequence[Rubbish]) -> list[str]:
    return [f"{one.path} ({one.kind}, {format_size(one.size_bytes)})" for one in rubbish]
