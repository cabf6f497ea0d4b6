"""ckptctl pin, unpin, tag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.groups import grouped
from ckptctl.cli.options import JsonOpt, QuietOpt, SnapshotArg, StoreOpt, WaitOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import UsageError

if TYPE_CHECKING:
    from ckptctl.snapshot.labels import Labelled
    from ckptctl.snapshot.services import Services
    from ckptctl.store.layout import Store
    from ckptctl.store.selectors import Found

STATUSES: Final = "Exit status: 0 done; 2 usage; 4 no such snapshot; 10 store; 11 locked; 13 its labels are damaged."


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Where the snapshot is looked for, and how the command waits and speaks."""

    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Look in this run only.")] = None
    lock_wait: WaitOpt = None
    store: StoreOpt = None
    json: JsonOpt = False
    quiet: QuietOpt = False

    @property
    def manner(self) -> Manner:
        return Manner(self.json, self.quiet)

    @contextmanager
    def found(self, snapshot: str) -> Iterator[tuple[Store, Found, Services]]:
        """The snapshot that is meant, in its store."""
        from ckptctl.store.selectors import find

        with session(self.manner, store=self.store, lock_wait=self.lock_wait) as app:
            place = app.existing_store()
            yield place, find(place, snapshot, self.run), app.services


@grouped
def pin(
    snapshot: SnapshotArg,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for whoever wonders.")] = None,
    *,
    options: LabelOptions,
) -> int:
    """Keep a snapshot whatever the rules say."""
    from ckptctl.snapshot.labels import pin as put

    with options.found(snapshot) as (place, found, services):
        done = put(place, found, reason, services)
    return emit(options.manner, "pin", done, f"{done.id} of the run {done.run} is pinned.")


@grouped
def unpin(snapshot: SnapshotArg, options: LabelOptions) -> int:
    """Take the pin of a snapshot away."""
    from ckptctl.snapshot.labels import unpin as take

    with options.found(snapshot) as (place, found, services):
        done = take(place, found, services)
    words = "is pinned no more" if done.changed else "was not pinned"
    return emit(options.manner, "unpin", done, f"{done.id} of the run {done.run} {words}.")


@grouped
def tag(
    snapshot: SnapshotArg,
    add: Annotated[list[str] | None, typer.Option("--add", metavar="TAG", help="A tag to add; repeatable.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="TAG", help="A tag to take away; repeatable.")
    ] = None,
    *,
    options: LabelOptions,
) -> int:
    """Add tags to a snapshot, or take some away."""
    from ckptctl.snapshot.labels import tag as change
    from ckptctl.store.names import check_tag

    added, removed = [check_tag(text) for text in add or ()], tuple(remove or ())
    if not added and not removed:
        raise UsageError("Nothing says which tag is to be added or taken away.", hint="Give --add TAG or --remove TAG.")
    with options.found(snapshot) as (place, found, services):
        done = change(place, found, added, removed, services)
    return emit(options.manner, "tag", done, _tags(done))


def _tags(done: Labelled) -> str:
    return f"{done.id} of the run {done.run} has {'the tags ' + ', '.join(done.tags) if done.tags else 'no tags'}."
