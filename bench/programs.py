"""The programs that are measured: running them, and what they used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Where Python keeps compiled modules. Of a folder that was installed they lie beside the sources.
COMPILED = "PYTHONPYCACHEPREFIX"
CKPTCTL = Path(sys.executable).with_name("ckptctl")
_INSTALL_CRIU = Path(__file__).parent.parent / "scripts" / "install-criu"


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has succeeded. `peak_bytes`: the most that it, or one that it waited for, had in memory."""

    output: str
    seconds: float
    peak_bytes: int


def run(words: Sequence[str | Path]) -> Ended:
    """Run a command that must succeed; what it starts may live on."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began_s = time.monotonic()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        took_s = time.monotonic() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode()
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"bench: {' '.join(map(str, words))} ended with {process.returncode}:\n{said}{errors.read()!r}")
    return Ended(said, took_s, used.ru_maxrss << 10)


def as_installed(folder: Path) -> dict[str, str]:
    """An environment for ckptctl in which it finds its modules compiled, as after an installation, from the second
    time on; its stores and its state lie in `folder`."""
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        COMPILED: f"{folder}/compiled",
        "CKPTCTL_STORE": f"{folder}/store",
        "CKPTCTL_STATE": f"{folder}/state",
    }


def find_criu() -> Path:
    """The CRIU that ckptctl takes too."""
    found = re.search(r" is ready: (.*) \(from ", run([_INSTALL_CRIU, "--check"]).output)
    return Path(found[1]) if found else sys.exit("bench: no CRIU")


def offers_direct_io(criu: Path) -> bool:
    """Whether this CRIU can write and read its images past the page cache by itself (after 4.2.1)."""
    return "--image-io-mode" in run([criu, "--help"]).output


def write_through(folder: Path) -> None:
    """Bring every file of a folder, and the folder, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
