"""What is read about CUDA, from the files of machines that are laid out in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.preflight.cuda_facts import module_version, read_cuda

_OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder@U22-I3)
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""
_CLOSED = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.144  Thu Apr 10 20:33:29 UTC 2025
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


@pytest.mark.parametrize(("text", "version"), [(_OPEN, "580.159.04"), (_CLOSED, "570.144"), ("", None)])
def test_the_version_of_the_module_has_two_or_three_parts(text: str, version: str | None) -> None:
    assert module_version(text) == version


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root folder of a machine with two GPUs."""
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libcuda.so.580.159.04").touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.580.159.04")
    for number, (vendor, kind) in enumerate([("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]):
        device = tmp_path / f"sys/bus/pci/devices/0000:0{number}:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    for path, text in (("proc/driver/nvidia/version", _OPEN), ("proc/812/comm", "nvidia-cuda-mps\n"), ("dev/x", "")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    return tmp_path


def test_a_machine_is_read(root: Path) -> None:
    facts = read_cuda({"PATH": ""}, 10, root)
    assert facts.present
    assert facts.module == facts.library_version == "580.159.04"
    assert facts.library == str(root / "usr/lib/x86_64-linux-gnu/libcuda.so.1")
    assert facts.hardware == 1
    assert facts.devices == ("nvidia-uvm", "nvidia0", "nvidiactl")
    assert facts.mps == (812,)
    assert facts.utility is None


def test_libraries_are_found_as_the_loader_finds_them(root: Path, tmp_path: Path) -> None:
    cached = root / "opt/driver/libcuda.so.1"
    cached.parent.mkdir(parents=True)
    cached.touch()
    (root / "etc").mkdir()
    (root / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libcuda.so.1\0/opt/driver/libcuda.so.1\0libx.so\0")
    assert read_cuda({"PATH": ""}, 10, root).library == str(cached)
    named = tmp_path / "named"
    named.mkdir()
    (named / "libcuda.so.1").touch()
    facts = read_cuda({"PATH": "", "LD_LIBRARY_PATH": f"/nowhere:{named}"}, 10, root)
    assert facts.library == str(named / "libcuda.so.1")
    assert facts.library_version is None


def test_an_empty_machine_has_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    facts = read_cuda({"PATH": ""}, 10, tmp_path)
    assert (facts.module, facts.library, facts.hardware, facts.devices, facts.mps) == (None, None, 0, (), ())
