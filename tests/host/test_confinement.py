"""What confines this process, from the files of machines that are laid out in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.host.confinement import read_confinement


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_nothing_confines_where_nothing_is(tmp_path: Path) -> None:
    found = read_confinement(lay(tmp_path, {"proc/self/uid_map": "         0          0 4294967295\n"}))
    assert (found.apparmor, found.selinux, found.seccomp, found.container) == (None, None, False, None)
    assert found.first_user_namespace


def test_apparmor_tells_its_profile(tmp_path: Path) -> None:
    files = {
        "sys/kernel/security/lsm": "lockdown,capability,yama,apparmor",
        "sys/module/apparmor/parameters/enabled": "Y\n",
        "proc/self/attr/current": "docker-default (enforce)\n",
        "proc/self/status": "Name:\tx\nSeccomp:\t2\n",
        "proc/self/uid_map": "         0     100000      65536\n",
    }
    found = read_confinement(lay(tmp_path, files))
    assert found.apparmor == "docker-default (enforce)"
    assert found.selinux is None
    assert found.seccomp
    assert not found.first_user_namespace
    assert found.security_modules == ("lockdown", "capability", "yama", "apparmor")


def test_selinux_tells_its_context(tmp_path: Path) -> None:
    files = {
        "sys/fs/selinux/enforce": "1",
        "proc/self/attr/current": "system_u:system_r:container_t:s0:c1,c2\0",
    }
    found = read_confinement(lay(tmp_path, files))
    assert found.selinux == "system_u:system_r:container_t:s0:c1,c2"
    assert found.selinux_enforcing
    assert found.apparmor is None


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "Podman"),
        ({"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({"proc/1/cgroup": "0::/kubepods.slice/kubepods-pod1.slice\n"}, "Kubernetes"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
    ],
)
def test_containers_are_known_by_their_marks(files: dict[str, str], kind: str | None, tmp_path: Path) -> None:
    assert read_confinement(lay(tmp_path, files)).container == kind


def test_this_process_is_read() -> None:
    found = read_confinement()
    assert found.first_pid_namespace is (str(Path("/proc/self/ns/pid").readlink()) == "pid:[4026531836]")
