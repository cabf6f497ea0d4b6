"""What the machine can do: tests that need more than there is are skipped, or fail where CKPTCTL_REQUIRE names it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

_INSTALL_CRIU: Final = Path(__file__).parents[2] / "scripts" / "install-criu"


@cache
def criu_program() -> Path | None:
    """The CRIU that ckptctl would take, where it is new enough and works on this kernel for this user."""
    done = subprocess.run([_INSTALL_CRIU, "--check"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.fullmatch(r"CRIU \S+ is ready: (.*) \(from .*\)\n", done.stdout)
    return Path(found[1]) if done.returncode == 0 and found else None


@cache
def has_torch() -> bool:
    """Whether this Python can import PyTorch."""
    return importlib.util.find_spec("torch") is not None


@cache
def has_namespaces() -> bool:
    """Whether this user may make mount and PID namespaces."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(unshare, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


@cache
def has_fake_gpu() -> bool:
    """Whether the fake GPU can be built, may have its device, and can be driven by cuda-bindings."""
    try:
        bindings = importlib.util.find_spec("cuda.bindings")
    except ModuleNotFoundError:
        bindings = None
    return bool(bindings and shutil.which("cc") and os.geteuid() == 0)


# Name → probe; a test asks for one by the marker `requires_NAME`.
CAPABILITIES: Final[Mapping[str, Callable[[], object]]] = {
    "criu": criu_program,
    "fake_gpu": has_fake_gpu,
    "namespaces": has_namespaces,
    "torch": has_torch,
}


def required(text: str) -> frozenset[str]:
    """The names in the value of CKPTCTL_REQUIRE (`criu,torch`); ValueError for one that is unknown."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if unknown := names - CAPABILITIES.keys():
        known = ", ".join(sorted(CAPABILITIES))
        raise ValueError(f"CKPTCTL_REQUIRE names {', '.join(sorted(unknown))}; known are {known}")
    return names
