"""Facts about this machine agree with what other programs say; the texts of other machines are read too."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptctl.host.firewall import has_iptables
from ckptctl.host.machine import CAPABILITIES, capability_names, read_cpu, read_machine, version_of

INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu vme avx512f\n\nprocessor\t: 1\nflags\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd40\n"


def test_facts_are_those_of_this_machine() -> None:
    machine = read_machine()
    assert machine.hostname == platform.node()
    assert machine.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert machine.kernel == platform.release()
    assert machine.architecture == platform.machine()
    assert machine.user_id == os.geteuid()
    assert machine.page_size_bytes == os.sysconf("SC_PAGE_SIZE")
    assert machine.memory_total_bytes == os.sysconf("SC_PHYS_PAGES") * machine.page_size_bytes
    assert 0 < machine.memory_available_bytes < machine.memory_total_bytes
    assert machine.first_process.name == Path("/proc/1/comm").read_text().strip()


def test_capabilities_are_those_that_the_kernel_grants() -> None:
    mask = next(
        int(line.split()[1], 16) for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line
    )
    assert len(read_machine().capabilities) == mask.bit_count()


def test_capabilities_have_the_numbers_of_the_kernel() -> None:
    assert CAPABILITIES.index("CAP_NET_ADMIN") == 12
    assert CAPABILITIES.index("CAP_SYS_ADMIN") == 21
    assert CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == 40
    assert capability_names(1 << 19 | 1) == {"CAP_CHOWN", "CAP_SYS_PTRACE"}


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("5.15.0-91-generic", (5, 15, 0)),
        ("6.1", (6, 1)),
        ("4.18.0-553.el8_10.x86_64", (4, 18, 0)),
        ("custom", ()),
    ],
)
def test_kernel_releases_are_read(release: str, version: tuple[int, ...]) -> None:
    assert version_of(release) == version


def test_processors_of_two_architectures_are_read() -> None:
    intel, arm = read_cpu(INTEL), read_cpu(ARM)
    assert (intel.model, intel.flags) == ("Intel(R) Xeon(R)", ("avx512f", "fpu", "vme"))
    assert (arm.model, arm.flags) == ("0xd40", ("asimd", "fp", "sve"))


@pytest.mark.requires_criu
def test_nftables_are_where_the_kernel_answers_to_criu(criu: Path) -> None:
    done = subprocess.run([criu, "check", "--feature", "network_lock_nftables"], capture_output=True)
    assert read_machine().nftables == (done.returncode == 0)


def test_iptables_are_found_where_criu_would_find_them() -> None:
    path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    assert has_iptables() == (shutil.which("iptables-restore", path=path) is not None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop capabilities")
def test_without_the_right_to_it_there_are_no_nftables() -> None:
    code = (
        "from ckptctl.host.machine import read_machine as r; m = r(); print(m.nftables, 'CAP_KILL' in m.capabilities)"
    )
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all", sys.executable, "-c", code]
    assert subprocess.run(drop, capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
