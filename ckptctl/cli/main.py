"""The entry point and the only boundary for errors: whatever happens below ends here as an exit status."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Final

from ckptctl import __version__
from ckptctl.cli import umask
from ckptctl.errors import CkptctlError, ExitStatus, UsageError

SHELLS: Final = ("bash", "zsh", "fish", "powershell")
# By this variable Typer's completions ask what the words could be, with no words on the command line itself.
_COMPLETE: Final = "_CKPTCTL_COMPLETE"
_OBJECTS_UNTIL_COLLECTED: Final = 100_000


def console() -> None:
    """The console script `ckptctl`."""
    # Modules are made of many things that live on: to look for garbage among them takes a twentieth of a short command.
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTED)
    _open_standard_streams()
    status = main(sys.argv[1:])
    # Taking the interpreter apart takes a tenth of a short command, and changes nothing: no thread is waited for.
    sys.stderr.flush()
    os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status. Nothing is raised."""
    try:
        status = _answer(list(argv))
        sys.stdout.flush()
    except OSError as error:  # of help that could not be written; whoever reads no further has had enough
        from ckptctl.output import stream

        stream.discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return ExitStatus.DONE
        stream.write(sys.stderr, f"ckptctl: Standard output cannot be written: {error.strerror}.\n")
        return ExitStatus.BUG
    return status


def _answer(argv: list[str]) -> int:
    if argv == ["--version"]:  # answered before anything is loaded
        sys.stdout.write(f"ckptctl {__version__}\n")
        return ExitStatus.DONE
    # Snapshots hold every secret of the job, and criu creates its images as the umask says.
    umask.make_private()
    own = argv[: argv.index("--")] if "--" in argv else argv  # what comes behind is a job's
    json = "--json" in own
    command = next((word for word in own if not word.startswith("-")), "")
    try:
        return _run(argv)
    except CkptctlError as error:
        _say_failure(command, error, error.exit_status, json=json)
        return error.exit_status
    except KeyboardInterrupt:
        from ckptctl.interrupt import Interrupted

        _say_failure(command, Interrupted("Stopped by SIGINT."), ExitStatus.INTERRUPTED, json=json)
        return ExitStatus.INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and _asks_for_help(argv):
            raise
        return _other(command, error, json=json)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["--show-completion"] and len(argv) > 1:
        _choose_shell(argv[1:])
    from ckptctl.cli.commands import application

    wanted = argv[0] if argv else ""
    if not argv and _COMPLETE not in os.environ:
        with redirect_stdout(sys.stderr):
            application()(["--help"], prog_name="ckptctl", standalone_mode=False)
        return ExitStatus.USAGE
    try:
        return int(application(wanted)(argv, prog_name="ckptctl", standalone_mode=False) or 0)
    except SystemExit as ended:
        # Typer ends so after it printed a completion, and also hides a broken pipe, whosever it was.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        return int(ended.code or 0)


def _asks_for_help(argv: list[str]) -> bool:
    """Whether this does nothing but write to standard output; what else a command says, `output.text.say` writes."""
    return not argv or argv[0].startswith("-") or not {"-h", "--help"}.isdisjoint(argv)


def _choose_shell(words: list[str]) -> None:
    """Ask Typer for the completion of one shell: by itself it takes the one that it finds among its parents."""
    if len(words) > 1 or words[0] not in SHELLS:
        raise UsageError(
            f"--show-completion {' '.join(words)}: not a known shell.", hint=f"One of {', '.join(SHELLS)}."
        )
    os.environ[_COMPLETE] = f"source_{words[0]}"


def _other(command: str, error: Exception, *, json: bool) -> int:
    # Typer's own errors of usage are not among its public names; they are known by what they can do.
    show = getattr(error, "format_message", None)
    if callable(show):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "ckptctl"
        message = str(show()).strip()
        hint = f"{_option_for(message, context)}See `{path} --help`."
        usage = UsageError(message if message.endswith((".", "?")) else f"{message}.", hint=hint)
        _say_failure(command, usage, ExitStatus.USAGE, json=json)
        return ExitStatus.USAGE
    if json:
        _say_failure(command, error, ExitStatus.BUG, json=True)
    else:
        traceback.print_exception(error)
        sys.stderr.write("ckptctl: This is a bug in ckptctl. Please report it with the lines above.\n")
    return ExitStatus.BUG


def _option_for(message: str, context: object) -> str:
    """With which option a word is given that stands alone on the command line; empty where that cannot be told."""
    if not message.startswith("Got unexpected extra argument"):
        return ""
    known = {getattr(one, "name", None) for one in getattr(getattr(context, "command", None), "params", ())}
    found = next((name for name in ("pid", "run") if name in known), None)
    return {"pid": "A process is named with --pid PID. ", "run": "A run is named with --run NAME. ", None: ""}[found]


def _say_failure(command: str, error: Exception, status: int, *, json: bool) -> None:
    from ckptctl.output import document, stream, text

    if json:
        text.say(document.failure(command, error, status))
    elif isinstance(error, CkptctlError):
        stream.write(sys.stderr, text.error(error))


def _open_standard_streams() -> None:
    # Where the caller has closed one (`>&-`), the first file that is opened would get its number, an image say.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
