"""The Typer application: every command with its options and the exit statuses that it can end with."""

from __future__ import annotations

from functools import cache

import typer

from ckptctl.cli import dump, recover, restore, store


@cache
def application() -> typer.Typer:
    """The application; built once."""
    app = typer.Typer(
        name="ckptctl",
        help="Save a whole training job, process tree and GPU memory, and bring it back as if it had never stopped.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_callback)
    app.command("dump", epilog=dump.STATUSES)(dump.dump)
    app.command("restore", epilog=restore.STATUSES)(restore.restore)
    app.command("list", epilog=store.STATUSES)(store.list_)
    app.command("show", epilog=store.STATUSES)(store.show)
    app.command("verify", epilog=store.STATUSES)(store.verify)
    app.command("rm", epilog=store.STATUSES)(store.rm)
    app.command("recover", epilog=recover.STATUSES)(recover.recover)
    return app


def _callback(
    version: bool = typer.Option(False, "--version", help="Say the version and end.", is_eager=True),
) -> None:
    # Answered in main, before Typer is loaded; it is here to be listed in the help.
    if version:
        from ckptctl import __version__
        from ckptctl.output import text

        text.say(f"ckptctl {__version__}")
        raise typer.Exit
