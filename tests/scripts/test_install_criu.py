"""scripts/install-criu against fake CRIUs and a fake apt, in a mount namespace where /opt is a folder of the test."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import wait_for
from support.command_line import PROGRAM

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-criu"
PACKAGED = Path(__file__).parents[2] / "ckptctl" / "criu" / "install-criu"
MIRROR = "http://archive.invalid/debian/"


def write_program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return path


def write_criu(path: Path, version: str, check_status: int = 0) -> Path:
    """A program that answers what install-criu asks of CRIU."""
    return write_program(
        path,
        f"""
        case "$1" in
        --version) echo "Version: {version}" ;;
        check) echo "Error (criu/cr-check.c): something is missing"; exit {check_status} ;;
        esac
        """,
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as the script sees it: a fake apt first on PATH, an /opt of its own, and what apt was asked."""

    folder: Path

    @property
    def private(self) -> Path:
        """The private folder, which the script knows as /opt/ckptctl/criu."""
        return self.folder / "opt" / "ckptctl" / "criu"

    @property
    def apt_log(self) -> str:
        log = self.folder / "apt.log"
        return log.read_text() if log.exists() else ""

    def offer(self, suite: str, version: str, check_status: int = 0) -> None:
        """Let the mirror have a package of this version in `suite`."""
        tree = self.folder / f"tree-{suite}"
        write_criu(tree / "usr/sbin/criu", version, check_status)
        # As the real loader, it runs the program after --library-path; as a script, it can run another script.
        write_program(tree / "usr/lib/x-linux-gnu/ld-linux-x.so.2", 'shift 2; exec "$@"')
        control = "Package: criu\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: fake\n"
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(control)
        target = self.folder / f"mirror/{suite}.deb"
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", tree, target], check=True, capture_output=True)

    def command(self, *arguments: str, program: Path = SCRIPT) -> list[str | Path]:
        inside = f'mount --bind "{self.folder}/opt" /opt && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", program, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "FAKE": str(self.folder), "TMPDIR": str(self.folder / "tmp")}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("opt", "tmp"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    # Whatever CRIU this machine has, the script finds an old one before it.
    write_criu(tmp_path / "bin/criu", "3.17.1")
    (tmp_path / "candidate").write_text("3.17.1-2\n")
    write_program(tmp_path / "bin/apt-cache", 'printf "criu:\\n  Candidate: %s\\n" "$(cat $FAKE/candidate)"')
    write_program(
        tmp_path / "bin/apt-get",
        f"""
        echo "$*" >>$FAKE/apt.log
        configuration=$(printf '%s\\n' "$*" | sed -n 's/.*-c \\([^ ]*\\).*/\\1/p')
        case "$*" in
        indextargets*) printf '%s\\n' 'Debian-Security|http://security.invalid/' 'Debian|{MIRROR}' ;;
        *-d*install*)
            folder=${{configuration%/apt.conf}}
            cat $folder/sources/suite.sources >>$FAKE/apt.log
            suite=$(sed -n 's/^Suites: //p' $folder/sources/suite.sources)
            [ ! -e $FAKE/slow ] || {{ touch $FAKE/loading; sleep 60; }}
            cp $FAKE/mirror/$suite.deb $folder/cache/archives/ ;;
        *install*criu) cp $FAKE/packaged $FAKE/bin/criu ;;
        esac
        """,
    )
    return Machine(tmp_path)


needs_namespaces = pytest.mark.requires_namespaces


@needs_namespaces
def test_a_newer_build_goes_into_the_private_folder(machine: Machine) -> None:
    machine.offer("sid", "4.2.1")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "CRIU 4.2.1 is ready: /opt/ckptctl/criu/bin/criu (from the private folder)"
    assert f"URIs: {MIRROR}\n" in machine.apt_log
    assert [path.name for path in machine.private.parent.iterdir() if path.is_dir()] == ["criu"]
    assert list((machine.folder / "tmp").iterdir()) == []

    (machine.folder / "apt.log").unlink()
    again = machine.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout.splitlines()[-1] + "\n", "")
    assert machine.apt_log == ""


@needs_namespaces
def test_suites_are_tried_until_one_works_on_this_kernel(machine: Machine) -> None:
    machine.offer("sid", "4.9", check_status=1)
    machine.offer("trixie", "4.1.1")  # and forky cannot be loaded
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "CRIU 4.1.1 is ready" in done.stdout
    assert "CRIU of Debian sid: version 4.9 fails its own check on this kernel" in done.stderr
    assert "Debian forky could not be loaded" in done.stderr


@needs_namespaces
def test_the_package_of_the_distribution_is_taken_where_it_is_new_enough(machine: Machine) -> None:
    (machine.folder / "candidate").write_text("4.1.1-1\n")
    write_criu(machine.folder / "packaged", "4.1.1")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"CRIU 4.1.1 is ready: {machine.folder}/bin/criu (from PATH)"
    assert not machine.private.exists()


@needs_namespaces
def test_a_package_that_fails_its_check_is_not_the_end(machine: Machine) -> None:
    (machine.folder / "candidate").write_text("4.1.1-1\n")
    write_criu(machine.folder / "packaged", "4.1.1", check_status=1)
    machine.offer("sid", "4.2.1")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "from the private folder" in done.stdout


@needs_namespaces
def test_where_nothing_can_be_had_the_former_folder_stays(machine: Machine) -> None:
    former = write_criu(machine.private / "bin/criu", "4.0")
    done = machine.run()
    assert done.returncode == 1
    assert "(from the private folder): version 4.0 is older than 4.1" in done.stderr
    assert "No CRIU that works on this kernel could be had" in done.stderr
    assert former.exists()
    assert [path.name for path in machine.private.parent.iterdir() if path.is_dir()] == ["criu"]


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_installation_leaves_nothing_half_made(machine: Machine, number: signal.Signals) -> None:
    machine.offer("sid", "4.2.1")
    (machine.folder / "slow").touch()
    process = subprocess.Popen(
        machine.command(),
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for((machine.folder / "loading").exists, what="the fake apt at work")
    finally:
        os.killpg(process.pid, number)
        process.wait(10)
    assert not machine.private.exists()

    (machine.folder / "slow").unlink()
    assert machine.run().returncode == 0
    assert [path.name for path in machine.private.parent.iterdir() if path.is_dir()] == ["criu"]


def run_with(criu: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CKPTCTL_CRIU": str(criu)}
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True)


def test_a_good_criu_of_the_users_choice_is_left_alone(tmp_path: Path) -> None:
    criu = write_criu(tmp_path / "my criu", "4.3")
    began = time.monotonic()
    done = run_with(criu)
    assert time.monotonic() - began < 2
    assert (done.returncode, done.stdout) == (0, f"CRIU 4.3 is ready: {criu} (from $CKPTCTL_CRIU)\n")


@pytest.mark.parametrize(
    ("version", "check_status", "reason"),
    [("4.0", 0, "version 4.0 is older than 4.1"), ("4.3", 1, "version 4.3 fails its own check on this kernel")],
)
def test_a_bad_criu_of_the_users_choice_is_named(tmp_path: Path, version: str, check_status: int, reason: str) -> None:
    criu = write_criu(tmp_path / "criu", version, check_status)
    for arguments in ([], ["--check"]):
        done = run_with(criu, *arguments)
        assert done.returncode == 1
        assert f"{criu} (from $CKPTCTL_CRIU): {reason}" in done.stderr
    assert "Error (criu/cr-check.c)" in done.stderr or version == "4.0"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run_with(tmp_path / "nothing", "--check")
    assert done.returncode == 1
    assert "--version fails" in done.stderr


@pytest.mark.parametrize("name", ["install-criu", "setup"])
def test_unknown_arguments_are_refused_and_help_is_given(name: str) -> None:
    script = SCRIPT.with_name(name)
    assert subprocess.run([script, "--nonsense"], capture_output=True).returncode == 2
    done = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"usage: scripts/{name}" in done.stdout
    assert "set -euo" not in done.stdout


@needs_namespaces
def test_an_ordinary_user_is_told_to_be_root(machine: Machine) -> None:
    inside = f'mount --bind "{machine.folder}/opt" /opt && exec setpriv --reuid=65534 --regid=65534 --clear-groups bash'
    with PACKAGED.open() as script:
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside],
            env=machine.environment,
            stdin=script,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert "Installing needs root" in done.stderr


@needs_namespaces
@pytest.mark.parametrize("answer", [None, "y", "n"])
def test_check_installs_it_where_that_is_wanted(machine: Machine, answer: str | None) -> None:
    """Without a terminal `--yes` says so; on one, somebody is asked."""
    machine.offer("sid", "4.3")
    words = ["check", "--fix", "--json", *([] if answer else ["--yes"])]
    own = {
        "HOME": str(machine.folder),
        "CKPTCTL_STORE": f"{machine.folder}/store",
        "CKPTCTL_STATE": f"{machine.folder}",
    }
    asked, terminal = pty.openpty()
    try:
        os.write(asked, f"{answer}\n".encode())
        done = subprocess.run(
            machine.command(*words, program=PROGRAM),
            env={**machine.environment, **own},
            stdin=terminal if answer else subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    finally:
        os.close(asked)
        os.close(terminal)
    installed = answer != "n"
    result = json.loads(done.stdout)["result"]
    (program,) = (one for one in result["findings"] if one["check"] == "criu")
    assert program["level"] == ("ok" if installed else "error")
    assert result["mended"] == (["A criu that works is installed."] if installed else [])
    assert (machine.private / "bin/criu").exists() == installed
    assert ("[y/N]" in done.stderr) == (answer is not None)
