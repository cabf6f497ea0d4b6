"""The entry point and the only boundary for errors: whatever happens below ends here as an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from ckptctl import __version__
from ckptctl.errors import CkptctlError, ExitStatus


def console() -> None:
    """The console script `ckptctl`."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status. Nothing is raised."""
    if list(argv) == ["--version"]:  # answered before anything is loaded
        sys.stdout.write(f"ckptctl {__version__}\n")
        return ExitStatus.DONE
    # Snapshots hold every secret of the job, and criu creates its images as the umask says.
    os.umask(0o077)
    from ckptctl.cli.commands import application

    json = "--json" in argv
    command = next((word for word in argv if not word.startswith("-")), "")
    try:
        return int(application()(list(argv), prog_name="ckptctl", standalone_mode=False) or 0)
    except CkptctlError as error:
        _say_failure(command, error, error.exit_status, json=json)
        return error.exit_status
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the work is done. Nothing can be said any more.
        sys.stderr.close()
        return ExitStatus.DONE
    except Exception as error:
        return _other(command, error, json=json)


def _other(command: str, error: Exception, *, json: bool) -> int:
    # Typer's own errors of usage are not among its public names; they are known by what they can do.
    show = getattr(error, "format_message", None)
    if callable(show):
        from ckptctl.errors import UsageError

        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "ckptctl"
        _say_failure(command, UsageError(show(), hint=f"See `{path} --help`."), ExitStatus.USAGE, json=json)
        return ExitStatus.USAGE
    if json:
        _say_failure(command, error, ExitStatus.BUG, json=True)
    traceback.print_exception(error)
    sys.stderr.write("ckptctl: this is a bug in ckptctl. Please report it with the lines above.\n")
    return ExitStatus.BUG


def _say_failure(command: str, error: Exception, status: int, *, json: bool) -> None:
    from ckptctl.output import document, text

    if json:
        sys.stdout.write(document.failure(command, error, status) + "\n")
    elif isinstance(error, CkptctlError):
        sys.stderr.write(text.error(error))
