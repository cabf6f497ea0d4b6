"""How ckptctl was called, for whoever is to call it so again."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptctl.cli.umask import of_caller
from ckptctl.errors import CkptctlError

if TYPE_CHECKING:
    from ckptctl.supervise.duty import Call

_NAME: Final = "ckptctl"


class ProgramUnknown(CkptctlError):
    """Nobody can tell how this ckptctl could be started again."""

    code = "E_PROGRAM_UNKNOWN"


def own_program() -> Path:
    """The program that is ckptctl here, with its whole path. Raises ProgramUnknown."""
    found = sys.argv[0] if "/" in sys.argv[0] and os.access(sys.argv[0], os.X_OK) else shutil.which(_NAME)
    if found is None:
        raise ProgramUnknown(
            f"There is no program {_NAME} in the PATH.", hint="Install ckptctl, or add it to the PATH."
        )
    return Path(found).absolute()


def own_call() -> Call:
    """This call. Raises ProgramUnknown."""
    from ckptctl.host.service import service_of
    from ckptctl.supervise.duty import Call

    return Call(
        program=(str(own_program()),),
        arguments=tuple(sys.argv[1:]),
        cwd=Path.cwd(),
        environment=dict(os.environ),
        umask=of_caller(),
        output=_file(1),
        errors=_file(2),
        service=service_of(os.getpid(), os.environ, Path("/proc/self/cgroup").read_text()),
    )


def _file(descriptor: int) -> Path | None:
    """The regular file that a descriptor of ours writes to, where it has a name."""
    try:
        info = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        named = stat.S_ISREG(info.st_mode) and path.stat().st_ino == info.st_ino
    except OSError:
        return None
    return path if named else None
