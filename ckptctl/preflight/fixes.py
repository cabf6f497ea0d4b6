"""What ckptctl can mend of a machine by itself: few things, each safe and of this machine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ckptctl.criu.install import install
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.preflight.finding import Finding, Level

_CRIU: Final = frozenset({"criu", "criu-kernel", "criu-check", "criu-version"})
_TRACING: Final = "tracing"
_PTRACE_SCOPE: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_FORBIDDEN: Final = "3"


class FixFailed(CkptctlError):
    """Something could not be mended."""

    code = "E_FIX_FAILED"
    exit_status = ExitStatus.PARTIAL


@dataclass(frozen=True, slots=True)
class Fix:
    """`offer` says what would be done, as a question; `act` does it and raises CkptctlError where it cannot."""

    offer: str
    done: str
    act: Callable[[], None] = field(repr=False)


def offered(findings: Iterable[Finding], environment: Mapping[str, str]) -> tuple[Fix, ...]:
    """What can be done about these findings. `environment` is that of ckptctl, with its setting for criu."""
    return tuple(_offered([one for one in findings if one.level is Level.ERROR], environment))


def _offered(errors: list[Finding], environment: Mapping[str, str]) -> Iterator[Fix]:
    if any(one.check in _CRIU for one in errors):
        yield Fix(
            "Install a criu that works on this kernel (the distribution's package, or Debian's in /opt/ckptctl/criu)?",
            "A criu that works is installed.",
            lambda: install(environment),
        )
    if any(one.check == _TRACING and dict(one.data).get("scope", _FORBIDDEN) != _FORBIDDEN for one in errors):
        yield Fix(
            "Let processes of one user trace each other until the next boot (sysctl kernel.yama.ptrace_scope=0)?",
            "kernel.yama.ptrace_scope is 0 until the next boot.",
            _allow_tracing,
        )


def _allow_tracing() -> None:
    try:
        _PTRACE_SCOPE.write_text("0")
    except OSError as error:
        raise FixFailed(
            f"kernel.yama.ptrace_scope cannot be set: {error.strerror}.",
            hint="As root: sysctl kernel.yama.ptrace_scope=0",
        ) from error
