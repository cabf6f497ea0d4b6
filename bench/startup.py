"""What starting ckptctl costs: milliseconds beside a bare Python, and what each command imports.

usage: startup.py [--rounds 15] [COMMAND ...]

Exit status 1 if a command loads a package that it has no use for.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from programs import as_installed

_CKPTCTL = str(Path(sys.executable).with_name("ckptctl"))
_HEAVY = ("torch", "pydantic", "numpy", "typer", "rich", "google.protobuf", "blake3", "asyncio")


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and those of the heavy packages that it may load."""

    name: str
    argv: Sequence[str]
    allowed: frozenset[str] = field(default=frozenset())


def cases() -> list[Case]:
    """The commands whose start-up is looked at; `python -c pass` is what none can be quicker than."""
    typer = frozenset({"typer"})
    return [
        Case("python -c pass", (sys.executable, "-c", "pass")),
        Case("ckptctl --version", (_CKPTCTL, "--version")),
        Case("ckptctl list --json", (_CKPTCTL, "list", "--json"), typer),
        Case("ckptctl list", (_CKPTCTL, "list"), typer),
    ]


def seconds(argv: Sequence[str], environment: Mapping[str, str]) -> float:
    """Wall time of one run that must end well."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def imports(argv: Sequence[str], environment: Mapping[str, str], statuses: Sequence[int] = (0,)) -> dict[str, int]:
    """Module → microseconds that its import took, those of what it imports included."""
    done = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPROFILEIMPORTTIME": "1"},
    )
    if done.returncode not in statuses:
        raise subprocess.CalledProcessError(done.returncode, argv, stderr=done.stderr)
    rows = re.findall(r"^import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)$", done.stderr, re.MULTILINE)
    return {module: int(microseconds) for microseconds, module in rows}


def heavy_loaded(modules: Mapping[str, int]) -> set[str]:
    """The heavy packages among these modules."""
    return {package for package in _HEAVY if package in modules}


def main() -> int:
    """Measure, print, and judge by the packages alone: times differ from machine to machine."""
    parser = argparse.ArgumentParser(description="what starting ckptctl costs")
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args()
    superfluous = 0
    print(f"\nStart-up, median of {wanted.rounds} runs\n")
    print(f"{'':22}{'ms':>7}  {'modules':>8}  heavy packages loaded")
    with tempfile.TemporaryDirectory(prefix="ckptctl-bench-") as store:
        environment = as_installed(Path(store))
        for case in cases():
            took = statistics.median(seconds(case.argv, environment) for _ in range(wanted.rounds))
            modules = imports(case.argv, environment)
            loaded = heavy_loaded(modules)
            print(f"{case.name:22}{took * 1000:7.1f}  {len(modules):8}  {', '.join(sorted(loaded)) or 'none'}")
            for package in sorted(loaded - case.allowed):
                print(f"{'':22}{package} is not needed here and takes {modules[package] / 1000:.1f} ms")
                superfluous += 1
        slowest = sorted(imports(cases()[-1].argv, environment).items(), key=lambda item: -item[1])[:8]
    print(f"\nSlowest imports of {cases()[-1].name}, ms with what they import:")
    print("\n".join(f"{microseconds / 1000:8.1f}  {module}" for module, microseconds in slowest))
    return 1 if superfluous else 0


if __name__ == "__main__":
    sys.exit(main())
