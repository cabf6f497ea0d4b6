"""ckptctl recompress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, QuietOpt, StoreOpt, WaitOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import UsageError
from ckptctl.output import text
from ckptctl.units import format_size

if TYPE_CHECKING:
    from ckptctl.images.levels import Compression
    from ckptctl.snapshot.recompress import Recompressed
    from ckptctl.store.layout import Store

STATUSES: Final = (
    "Exit status: 0 done; 2 usage; 4 no such snapshot; 10 store; 11 locked; 13 damaged; 14 no space; "
    "15 nothing to compress with; 130, 143 interrupted."
)


def recompress(
    snapshots: Annotated[
        list[str] | None, typer.Argument(metavar="[SNAPSHOT]...", help="Snapshots of the store, as for `show`.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="All of this run; or look for the named ones there.")
    ] = None,
    compress: Annotated[
        str, typer.Option("--compress", metavar="fast|auto|better", help="How much time it may take.")
    ] = "better",
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Make snapshots smaller where they lie.

    Each is written anew and then put in place of the former by one rename; the job is not touched, and dumps and
    restores go on meanwhile. Snapshots of a run that share memory have to be done together.
    """
    from ckptctl.snapshot.recompress import recompress as work

    manner, level = Manner(json, quiet), _level(compress)
    if not snapshots and run is None:
        raise UsageError("Which ones is not said.", hint="Name snapshots, or all of a run: --run NAME")
    with session(manner, store=store, lock_wait=lock_wait) as app:
        place = app.existing_store()
        done = [
            one
            for name, ids in _chosen(place, snapshots or [], run).items()
            for one in work(place, name, ids, level, app.services)
        ]
    return emit(manner, "recompress", done, text.sentences(map(_line, done)) or "No snapshots to compress.")


def _level(word: str) -> Compression:
    from ckptctl.images.levels import Compression

    if word not in list(Compression) or word == Compression.OFF:
        raise UsageError(f"--compress {word}: not known.", hint="One of fast, auto, better.")
    return Compression(word)


def _chosen(store: Store, snapshots: list[str], run: str | None) -> dict[str, frozenset[str] | None]:
    """The ids of each run; None for all of it."""
    from ckptctl.store.names import check_run_name
    from ckptctl.store.selectors import find

    if not snapshots and run is not None:
        return {check_run_name(run): None}
    found: dict[str, frozenset[str] | None] = {}
    for one in (find(store, selector, run) for selector in snapshots):
        if one.run is None or one.id is None:
            raise UsageError(f"{one} is not in the store.", hint="Copy it instead: ckptctl export --images stream")
        found[one.run] = (found.get(one.run) or frozenset()) | {one.id}
    return found


def _line(one: Recompressed) -> str:
    if one.left_because is not None:
        return f"{one.id} of the run {one.run} is left as it is: {one.left_because}."
    return f"{one.id} of the run {one.run}: {format_size(one.before_bytes)}, now {format_size(one.after_bytes)}"
