"""The fake GPU of tests/fakegpu: built when it is first needed, one "machine" a test."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ckptctl.cuda.driver import CheckpointDriver
from ckptctl.cuda.interface import open_interface
from ckptctl.cuda.utility import open_utility

SOURCES: Final = Path(__file__).parents[1] / "fakegpu"
# Real ones that CRIU refuses to dump and that do nothing when they are only held open (names of /proc/misc).
_STAND_INS: Final = ("userfaultfd", "fuse", "loop-control")
_PARTS: Final = (
    ("libcuda.so.1", ("-shared", "-pthread"), ("libcuda.c", "machine.c", "control.c")),
    ("libnvidia-ml.so.1", ("-shared",), ("libnvidia-ml.c", "machine.c")),
    ("bin/cuda-checkpoint", (), ("cuda-checkpoint.c", "machine.c", "control.c")),
)


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU of the fake machine; `mig` is -1 for a GPU that knows no MIG."""

    number: int = 0
    total_bytes: int = 64 << 20
    persistence: bool = False
    compute_mode: int = 0
    mig: int = -1
    model: str = "Fake H100"

    @property
    def uuid(self) -> str:
        return f"GPU-fa4e0000-0000-4000-8000-{self.number:012x}"


@dataclass(frozen=True, slots=True)
class FakeGpu:
    """A machine with fake GPUs: give `environment` to every program on it, ckptctl included."""

    folder: Path
    device: Path
    libraries: Path

    @property
    def environment(self) -> dict[str, str]:
        """With the libraries, and no more: NVIDIA's utility is in `bin`."""
        others = os.environ.get("LD_LIBRARY_PATH")
        return {
            "FAKEGPU_DIR": str(self.folder),
            "FAKEGPU_DEVICE": str(self.device),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(self.libraries), others))),
        }

    @property
    def bin(self) -> Path:
        """The folder with cuda-checkpoint, for $PATH."""
        return self.libraries / "bin"

    def with_driver(self, driver: int) -> FakeGpu:
        """The same machine with another driver branch."""
        return replace(self, libraries=build(driver))

    def set_cards(self, *cards: Card) -> None:
        """Make these the GPUs of the machine from now on."""
        text = "".join(
            f"{card.uuid} {card.total_bytes} {card.persistence:d} {card.compute_mode} {card.mig} {card.model}\n"
            for card in cards
        )
        (self.folder / "gpus").write_text(text)

    def set_faults(self, *faults: str) -> None:
        """What goes wrong from now on, as `ACTION FAULT [PID]`: see fault() in machine.c."""
        temporary = self.folder / "faults.new"
        temporary.write_text("".join(f"{fault}\n" for fault in faults))
        temporary.replace(self.folder / "faults")

    def doing(self, pid: int) -> str:
        """The action that the driver carries out on a process at this moment; empty for none."""
        try:
            return (self.folder / f"control/{pid}.doing").read_text()
        except FileNotFoundError:
            return ""

    def used_bytes(self, card: Card) -> int:
        """Device memory in use on a GPU by processes that live or lived."""
        return sum(file.stat().st_size for file in (self.folder / "memory" / card.uuid).glob("*"))

    def pids_on(self, card: Card) -> set[int]:
        """The processes with device memory on a GPU."""
        return {int(file.name.partition(".")[0]) for file in (self.folder / "memory" / card.uuid).glob("*")}

    @staticmethod
    def training(steps: int, *options: str) -> list[str]:
        """The command line of the training program."""
        return [sys.executable, str(SOURCES / "train.py"), str(steps), *options]


@contextmanager
def fake_gpu(folder: Path, driver: int, *cards: Card) -> Iterator[FakeGpu]:
    """A machine with driver branch `driver` (570, ...) whose state is in `folder`; one 64 MiB GPU if none is given."""
    folder.mkdir(parents=True, exist_ok=True)
    device = Path(f"/dev/nvidia-fake-{secrets.token_hex(4)}")
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(10, _minor()))
    try:
        machine = FakeGpu(folder, device, build(driver))
        machine.set_cards(*(cards or (Card(),)))
        yield machine
    finally:
        device.unlink()


def interface_on(machine: FakeGpu) -> CheckpointDriver:
    """The driver interface of a fake machine."""
    return open_interface(machine.environment)


def utility_on(machine: FakeGpu) -> CheckpointDriver:
    """NVIDIA's utility on a fake machine."""
    return open_utility(f"{machine.bin}:{os.environ['PATH']}", machine.environment)


def build(driver: int) -> Path:
    """The folder with the libraries of one driver branch, compiled unless these sources were before."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]"))))
    root = Path(tempfile.gettempdir()) / f"ckptctl-fakegpu-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    assert root.stat().st_uid == os.getuid(), f"{root} belongs to someone else"
    target = root / f"{digest.hexdigest()[:16]}-{driver}"
    if not target.exists():
        work = Path(tempfile.mkdtemp(dir=root))
        (work / "bin").mkdir()
        for name, options, sources in _PARTS:
            _compile(work / name, driver, options, sources)
        try:
            work.rename(target)
        except OSError:  # another worker was faster
            shutil.rmtree(work)
    return target


def _compile(target: Path, driver: int, options: tuple[str, ...], sources: tuple[str, ...]) -> None:
    strict = ("-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fPIC", f"-DDRIVER={driver}")
    paths = [str(SOURCES / source) for source in sources]
    done = subprocess.run(["cc", *strict, *options, "-o", target, *paths, "-ldl"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _minor() -> int:
    known = {name: int(minor) for minor, name in map(str.split, Path("/proc/misc").read_text().splitlines())}
    return next(known[name] for name in _STAND_INS if name in known)
