"""ckptctl pin, unpin, tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, QuietOpt, SnapshotArg, StoreOpt, WaitOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import UsageError

if TYPE_CHECKING:
    from ckptctl.snapshot.labels import Labelled

STATUSES: Final = "Exit status: 0 done; 2 usage; 4 no such snapshot; 10 store; 11 locked; 13 its labels are damaged."

RunOpt = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Look in this run only.")]


def pin(
    snapshot: SnapshotArg,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for whoever wonders.")] = None,
    run: RunOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Keep a snapshot whatever the rules say."""
    from ckptctl.snapshot.labels import pin as put
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    with session(manner, store=store, lock_wait=lock_wait) as app:
        place = app.existing_store()
        done = put(place, find(place, snapshot, run), reason, app.services)
    return emit(manner, "pin", done, f"{done.id} of the run {done.run} is pinned.")


def unpin(
    snapshot: SnapshotArg,
    run: RunOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Take the pin of a snapshot away."""
    from ckptctl.snapshot.labels import unpin as take
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    with session(manner, store=store, lock_wait=lock_wait) as app:
        place = app.existing_store()
        done = take(place, find(place, snapshot, run), app.services)
    words = "is pinned no more" if done.changed else "was not pinned"
    return emit(manner, "unpin", done, f"{done.id} of the run {done.run} {words}.")


def tag(
    snapshot: SnapshotArg,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="TAG", help="A tag to add; repeatable.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="TAG", help="A tag to take away; repeatable.")
    ] = None,
    run: RunOpt = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Add tags to a snapshot, or take some away."""
    from ckptctl.snapshot.labels import tag as change
    from ckptctl.store.names import check_tag
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    added, removed = [check_tag(text) for text in add or ()], tuple(remove or ())
    if not added and not removed:
        raise UsageError("Nothing says which tag is to be added or taken away.", hint="Give --add TAG or --remove TAG.")
    with session(manner, store=store, lock_wait=lock_wait) as app:
        place = app.existing_store()
        done = change(place, find(place, snapshot, run), added, removed, app.services)
    return emit(manner, "tag", done, _tags(done))


def _tags(done: Labelled) -> str:
    return f"{done.id} of the run {done.run} has {'the tags ' + ', '.join(done.tags) if done.tags else 'no tags'}."
