"""The Typer application: every command with its options and the exit statuses that it can end with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final

import typer

# Each command with its module and function.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "check": ("check", "check"),
    "ps": ("ps", "ps"),
    "run": ("run", "run"),
    "watch": ("watch", "watch"),
    "status": ("status", "status"),
    "dump": ("dump", "dump"),
    "restore": ("restore", "restore"),
    "list": ("store", "list_"),
    "show": ("store", "show"),
    "verify": ("store", "verify"),
    "export": ("exchange", "export"),
    "import": ("exchange", "import_"),
    "recompress": ("recompress", "recompress"),
    "pin": ("labels", "pin"),
    "unpin": ("labels", "unpin"),
    "tag": ("labels", "tag"),
    "rm": ("store", "rm"),
    "forget": ("forget", "forget"),
    "prune": ("forget", "prune"),
    "recover": ("recover", "recover"),
    "systemd": ("systemd", "systemd"),
    "cron": ("cron", "cron"),
    "drain": ("drain", "drain"),
    "undrain": ("drain", "undrain"),
}

# Those that say themselves what is wrong with a word too many.
_JUDGE_WORDS: Final = frozenset({"check"})


@cache
def application(wanted: str = "") -> typer.Typer:
    """The application; built once. With the name of one command it has that one alone, which saves 15 ms."""
    app = typer.Typer(
        name="ckptctl",
        help="Save a whole training job, process tree and GPU memory, and bring it back as if it had never stopped.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_callback)
    for name in (wanted,) if wanted in COMMANDS else COMMANDS:
        module_name, function = COMMANDS[name]
        module = import_module(f"ckptctl.cli.{module_name}")
        judges = {"allow_extra_args": name in _JUDGE_WORDS}
        app.command(name, epilog=module.STATUSES, context_settings=judges)(getattr(module, function))
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
