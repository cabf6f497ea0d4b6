"""The Typer application: every command with its options and the exit statuses that it can end with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperOption

from ckptctl.errors import UsageError

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


class _Command(TyperCommand):
    """A command that sees when an option got the next option for its value: `--pid $(pgrep nothing) --to DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See Click. Raises UsageError."""
        options = [one for one in self.params if isinstance(one, TyperOption)]
        names = {name for one in options for name in (*one.opts, *one.secondary_opts)}
        # What criu gets may be called as an option of ours.
        valued = {name for one in options if not one.is_flag and one.name != "criu_option" for name in one.opts}
        own = args[: args.index("--")] if "--" in args else args
        for option, value in pairwise(own):
            if option in valued and value in names:
                raise UsageError(
                    f"{option} has no value: {value} comes next.",
                    hint=f"See `{ctx.command_path} --help`; a value that is called so is written {option}={value}",
                )
        return super().parse_args(ctx, args)


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
        app.command(name, cls=_Command, epilog=module.STATUSES, context_settings=judges)(getattr(module, function))
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
