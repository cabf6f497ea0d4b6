"""The folder that carries to a machine without network what the proof needs: CRIU with its libraries, and wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# pip takes these names literally, so every one that a wheel may carry is listed.
_PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 26, 24, 17)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
_WRAPPER: Final = """#!/bin/sh
# CRIU with the loader and the libraries beside it.
here=$(dirname "$(readlink -f "$0")")
exec "$here/ld-linux-x86-64.so.2" --library-path "$here" "$here/criu.bin" "$@"
"""


def pack(folder: Path, python_version: str, workload: Path | None) -> int:
    """Gather everything into `folder`; prints its size. Raises CalledProcessError where pip fails."""
    folder.mkdir(parents=True, exist_ok=True)
    _pack_criu(folder / "criu")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cuda"]]
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation", "cp"]
    words += ["--python-version", python_version, "--dest", str(wheels)]
    words += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    subprocess.run([*words, *wanted], check=True)
    if workload:
        shutil.copyfile(workload, folder / "train.py")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB, {len(list(wheels.iterdir()))} wheels")
    return 0


def unpack(folder: Path, work: Path) -> dict[str, str]:
    """Make the kit usable; the environment in which the parts run."""
    site = work / "site"
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    # A copy of the kit may have lost the permission to execute.
    criu = work / "criu"
    shutil.copytree(folder / "criu", criu)
    for name in ("criu", "criu.bin", "ld-linux-x86-64.so.2"):
        (criu / name).chmod(0o755)
    environment = {**os.environ, "CKPTCTL_CRIU": str(criu / "criu"), "GPU_PROOF_SITE": str(site)}
    if (folder / "train.py").exists():
        environment["GPU_PROOF_TRAIN"] = str(folder / "train.py")
    return environment


def _pack_criu(target: Path) -> None:
    """Copy the CRIU that is used here, with its loader and libraries, as plain files."""
    program = os.environ.get("CKPTCTL_CRIU") or "/opt/ckptctl/criu/bin/criu"
    found = shutil.which(program) or shutil.which("criu")
    if found is None:
        sys.exit("gpu-proof: there is no CRIU here to pack; run scripts/install-criu, or set CKPTCTL_CRIU")
    binary, loader, search = _real_criu(Path(found))
    listed = subprocess.run([loader, *search, "--list", binary], capture_output=True, text=True, check=True).stdout
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for library in re.findall(r"=> (/\S+)", listed):
        shutil.copyfile(library, target / Path(library).name)
    shutil.copyfile(binary, target / "criu.bin")
    shutil.copyfile(loader, target / "ld-linux-x86-64.so.2")
    (target / "criu").write_text(_WRAPPER)
    for name in ("criu", "criu.bin", "ld-linux-x86-64.so.2"):
        (target / name).chmod(0o755)


def _real_criu(found: Path) -> tuple[str, str, list[str]]:
    """The ELF file of CRIU, its loader and the loader's options; `found` may be a wrapper that names all three."""
    with found.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            return str(found), "/lib64/ld-linux-x86-64.so.2", []
    match = re.search(r"exec (\S+) --library-path (\S+) (\S+)", found.read_text())
    if match is None:
        sys.exit(f"gpu-proof: {found} is neither CRIU nor a wrapper that runs it with a loader of its own")
    return match[3], match[1], ["--library-path", match[2]]
