"""ckptctl export, import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import CompressOpt, ImagesOpt, JsonOpt, QuietOpt, SnapshotArg, StoreOpt, WaitOpt, parse_form
from ckptctl.cli.session import Manner, emit, session
from ckptctl.output import text
from ckptctl.units import format_size

if TYPE_CHECKING:
    from ckptctl.snapshot.exchange import Copied

STATUSES: Final = (
    "Exit status: 0 copied; 2 usage; 4 no such snapshot; 10 store; 11 locked; 13 damaged; 14 no space; "
    "130, 143 interrupted."
)
_DIRECTORY: Final = "directory"
_STREAM: Final = "stream"


def export(
    snapshot: SnapshotArg,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the copy goes: a folder that is empty or new.")],
    images: ImagesOpt = _DIRECTORY,
    compress: CompressOpt = None,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Look in this run only.")] = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Copy a snapshot to a folder of its own.

    With criu's own files in it, as crit and other tools know them, unless asked otherwise.
    """
    from ckptctl.snapshot.exchange import export as copy
    from ckptctl.store.selectors import find

    manner = Manner(json, quiet)
    form = parse_form(images or _DIRECTORY, compress)
    with session(manner, store=store) as app:
        found = find(app.store_if_any(), snapshot, run)
        copied = copy(found.folder, folder, form, app.services)
    return emit(manner, "export", copied, _words(copied))


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of one snapshot.")],
    images: ImagesOpt = _STREAM,
    compress: CompressOpt = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The run to copy it into.", show_default="its own")
    ] = None,
    lock_wait: WaitOpt = None,
    store: StoreOpt = None,
    json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> int:
    """Copy a snapshot from a folder of its own into the store."""
    from ckptctl.snapshot.exchange import bring_in
    from ckptctl.store.layout import SnapshotFolder, require_own
    from ckptctl.store.names import check_run_name

    manner = Manner(json, quiet)
    form = parse_form(images or _STREAM, compress)
    named = None if run is None else check_run_name(run)
    with session(manner, store=store, lock_wait=lock_wait) as app:
        source = SnapshotFolder(folder.absolute())
        require_own(source.path)
        copied = bring_in(source, app.store(), named, form, app.services)
    return emit(manner, "import", copied, _words(copied))


def _words(copied: Copied) -> str:
    return text.sentences(
        [f"snapshot {copied.id} of the run {copied.run}: {format_size(copied.image_bytes)}", f"  {copied.folder}"]
    )
