"""Installing a CRIU that works on this kernel, by the script that is part of the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.errors import CkptctlError, ExitStatus

INSTALLER: Final = Path(__file__).with_name("install-criu")


class InstallFailed(CkptctlError):
    """No criu that works could be installed."""

    code = "E_INSTALL_FAILED"
    exit_status = ExitStatus.INCOMPATIBLE


def install(environment: Mapping[str, str] | None = None) -> None:
    """Run the installer, which says on standard error what it does; takes minutes. Raises InstallFailed."""
    # Started through bash: what unpacks a package does not always keep that a file may be executed.
    words = ["bash", "-c", 'exec bash "$0" >&2', str(INSTALLER)]
    child = command.start(words, output=None, environment=environment, own_session=False)
    try:
        status = child.wait()
    finally:
        child.close()
    if status != 0:
        raise InstallFailed(
            f"The installation of criu ended with {command.describe_status(status)}.",
            hint="See the lines above; as root, with a network: ckptctl check --fix",
        )
