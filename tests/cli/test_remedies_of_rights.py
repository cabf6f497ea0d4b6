"""What check tells to do about missing rights is done, by users without them; then check is content, and it works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from support import CommandLine, Job, Jobs, wait_for
from support.jobs import state
from support.shapes import started

pytestmark = [
    pytest.mark.requires_criu,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become somebody else"),
]

_USER: Final = 65534
_AS_USER: Final = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")
# So that the user can start a Python that lies in a folder of root's; it lets nobody dump or restore anything.
_TO_START: Final = ("dac_read_search",)
# What the remedy names.
_NAMED: Final = ("checkpoint_restore", "sys_ptrace", "setpcap")
_UNPRIVILEGED: Final = "--criu-option=--unprivileged"
# With what it has open on mounts of its own too.
_OWN_MOUNTS: Final = ("unshare", "--mount", "sh", "-c", 'exec "$@" </dev/null >out 2>&1', "sh")
# As setcap(8) does for a criu that is no script: it gives what its file has to what it starts.
_LAUNCHER: Final = r"""
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	(void)count;
	if (syscall(SYS_capget, &header, data))
		return 125;
	for (int i = 0; i < 2; i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data))
		return 125;
	for (int i = 0; i <= CAP_LAST_CAP; i++)
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
	execv(CRIU, words);
	return 127;
}
"""


def with_rights(*names: str) -> tuple[str, ...]:
    """A command that runs another one as the user, with these capabilities and no more."""
    every = ",".join(f"+{name}" for name in names)
    return (*_AS_USER, f"--inh-caps={every}", f"--ambient-caps={every}")


@pytest.fixture
def job(start_job: Jobs) -> Job:
    """A job of the user's."""
    quiet = "exec sleep 600 </dev/null >/dev/null 2>&1"
    started_job = start_job([*_AS_USER, "sh", "-c", quiet], cwd=Path("/"))
    wait_for(lambda: Path(f"/proc/{started_job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    return started_job


@pytest.fixture
def users(ckptctl: CommandLine) -> Iterator[CommandLine]:
    """The command line with a store and a home of the user's."""
    folder = Path(tempfile.mkdtemp(prefix="ckptctl-user-"))
    os.chown(folder, _USER, _USER)
    own = {"HOME": str(folder), "CKPTCTL_STORE": str(folder / "store"), "CKPTCTL_STATE": str(folder / "state")}
    ckptctl.environment.update(own)
    yield ckptctl
    shutil.rmtree(folder)


@pytest.fixture
def launcher(criu: Path) -> Iterator[Path]:
    """A program that is criu, where its file may have capabilities: ours is a script, which may not."""
    folder = Path(tempfile.mkdtemp(prefix="ckptctl-criu-"))
    folder.chmod(0o755)
    source, program = folder / "criu.c", folder / "criu"
    source.write_text(_LAUNCHER)
    done = subprocess.run(["cc", f'-DCRIU="{criu}"', "-o", program, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield program
    shutil.rmtree(folder)


def blockers(answer: Any) -> dict[str, Any]:
    """The findings that stand in the way, by check."""
    return {one["check"]: one for one in answer["findings"] if one["level"] == "error"}


def asked(
    ckptctl: CommandLine, *words: str, prefix: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What stands in the way, as `check WORDS` says."""
    ended = ckptctl("check", *words, "--json", prefix=prefix, environment=environment)
    found = blockers(ended.document["result"])
    ended.check(5 if found else 0)
    return found


def goes_through(
    ckptctl: CommandLine, job: Job, *words: str, prefix: tuple[str, ...], environment: dict[str, str] | None = None
) -> None:
    """Dump it and restore it: it is there again."""
    ckptctl("dump", "--pid", str(job.pid), *words, prefix=prefix, environment=environment).check()
    job.wait_gone()
    assert asked(ckptctl, "--snapshot", "latest", prefix=prefix, environment=environment) == {}
    ckptctl("restore", "latest", *words, prefix=prefix, environment=environment).check()
    assert state(job.pid) == "S"
    assert job.processes() == [job.pid]


def test_capabilities_are_given_to_the_user(job: Job, users: CommandLine) -> None:
    weak = with_rights(*_TO_START)
    found = asked(users, "--pid", str(job.pid), prefix=weak)
    assert set(found) == {"capabilities"}
    assert "setpriv --ambient-caps" in found["capabilities"]["remedy"]
    users("dump", "--pid", str(job.pid), _UNPRIVILEGED, prefix=weak).check(5)

    able = with_rights(*_TO_START, *_NAMED)
    assert asked(users, "--pid", str(job.pid), prefix=able) == {}
    goes_through(users, job, _UNPRIVILEGED, prefix=able)


def test_capabilities_are_given_to_criu(job: Job, users: CommandLine, launcher: Path) -> None:
    if not shutil.which("setcap"):
        pytest.skip("no setcap")
    weak, with_it = with_rights(*_TO_START), {"CKPTCTL_CRIU": str(launcher)}
    found = asked(users, "--pid", str(job.pid), prefix=weak, environment=with_it)
    assert set(found) == {"capabilities"}
    rights = found["capabilities"]["remedy"].partition("setcap ")[2].partition(")")[0]
    subprocess.run(["setcap", rights, launcher], check=True)
    assert asked(users, "--pid", str(job.pid), prefix=weak, environment=with_it) == {}
    goes_through(users, job, _UNPRIVILEGED, prefix=weak, environment=with_it)


def test_without_the_right_to_drop_capabilities_the_restore_is_refused(job: Job, users: CommandLine) -> None:
    """Only where this machine keeps something back from everybody: then each process must be bound again."""
    bound = int(Path(f"/proc/{job.pid}/status").read_text().partition("CapBnd:")[2].split()[0], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    able = with_rights(*_TO_START, *(name for name in _NAMED if name != "setpcap"))
    users("dump", "--pid", str(job.pid), _UNPRIVILEGED, prefix=able).check()
    job.wait_gone()
    found = asked(users, "--snapshot", "latest", prefix=able)
    restored = users("restore", "latest", _UNPRIVILEGED, prefix=able)
    if bound == (2 << last) - 1:
        assert found == {}
        restored.check()
        return
    assert set(found) == {"job-capabilities"}
    restored.check(5)
    users("restore", "latest", _UNPRIVILEGED, prefix=with_rights(*_TO_START, *_NAMED)).check()


def test_files_that_the_user_may_not_open_are_named(start_job: Jobs, users: CommandLine) -> None:
    able, log = with_rights(*_TO_START, *_NAMED), Path(users.environment["HOME"], "log")
    job = start_job([*_AS_USER, "sh", "-c", f"exec sleep 600 </dev/null >>{log} 2>&1"], cwd=Path("/"))
    wait_for(lambda: Path(f"/proc/{job.pid}/comm").read_text() == "sleep\n", 10, "sleep")
    users("dump", "--pid", str(job.pid), _UNPRIVILEGED, prefix=able).check()
    job.wait_gone()
    os.chown(log, 0, 0)
    found = asked(users, "--snapshot", "latest", prefix=able)
    assert set(found) == {"file-access"}
    assert str(log) in found["file-access"]["summary"]
    users("restore", "latest", _UNPRIVILEGED, prefix=able).check(5)
    assert "chown" in found["file-access"]["remedy"]
    os.chown(log, _USER, _USER)
    assert asked(users, "--snapshot", "latest", prefix=able) == {}
    users("restore", "latest", _UNPRIVILEGED, prefix=able).check()
    assert state(job.pid) == "S"


def test_limits_are_read_by_the_user_of_the_job(job: Job, users: CommandLine) -> None:
    """Root without CAP_SYS_RESOURCE, as in containers, may not read the limits of others."""
    weak = ("setpriv", "--bounding-set=-sys_resource")
    found = asked(users, "--pid", str(job.pid), prefix=weak)
    assert set(found) == {"limits"}
    assert "as the user of the job" in found["limits"]["remedy"]
    able = with_rights(*_TO_START, *_NAMED)
    assert asked(users, "--pid", str(job.pid), prefix=able) == {}
    goes_through(users, job, _UNPRIVILEGED, prefix=able)


def test_what_is_hidden_is_seen_by_root(start_job: Jobs, users: CommandLine) -> None:
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        found = asked(users, "--pid", str(shape.pid), prefix=with_rights("checkpoint_restore", *_TO_START))
        assert "visible" in found
        assert "as root" in found["visible"]["remedy"]
        assert asked(users, "--pid", str(shape.pid)) == {}
        users("dump", "--pid", str(shape.pid)).check()
        at_the_dump = shape.steps()
        users("restore", "latest").check()
        shape.wait_steps(at_the_dump + 5)


def test_processes_of_others_are_restored_by_root(start_job: Jobs, users: CommandLine) -> None:
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        users("dump", "--pid", str(shape.pid), "--to", str(users.environment["HOME"] + "/one")).check()
        at_the_dump, folder = shape.steps(), Path(users.environment["HOME"], "one")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, _USER, _USER, follow_symlinks=False)
        found = asked(users, "--snapshot", str(folder), prefix=with_rights(*_TO_START, *_NAMED))
        assert "user" in found
        assert found["user"]["remedy"] == "Run the restore as root."
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, 0, follow_symlinks=False)
        assert asked(users, "--snapshot", str(folder)) == {}
        users("restore", str(folder)).check()
        shape.wait_steps(at_the_dump + 5)


def test_a_connection_is_held_still_by_who_may(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "tcp_outside", "--strict") as shape:
        shape.wait_steps(3)

        def warned(prefix: tuple[str, ...] = ()) -> dict[str, str]:
            result = ckptctl("check", "--pid", str(shape.pid), "--json", prefix=prefix).check().document["result"]
            return {one["check"]: one["remedy"] for one in result["findings"] if one["level"] == "warning"}

        weak = warned(("setpriv", "--bounding-set=-net_admin"))
        assert set(weak) == {"tcp-outside", "network-lock"}
        assert weak["network-lock"].startswith("Run as root on a kernel with nftables")
        held = warned()
        assert set(held) == {"tcp-outside"}
        # "Restore on this host and soon": then it is the same connection still.
        assert held["tcp-outside"].startswith("Restore on this host and soon")
        ckptctl("dump", "--pid", str(shape.pid)).check()
        at_the_dump = shape.steps()
        ckptctl("restore", "latest").check()
        shape.wait_steps(at_the_dump + 5)


def test_a_job_with_mounts_of_its_own_is_dumped_from_within(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "append_log", prefix=_OWN_MOUNTS) as shape:
        shape.wait_steps(3)
        # Its mounts go when the last process in them ends: another one of the container stays.
        beside = start_job(["nsenter", "--target", str(shape.pid), "--mount", "--", "sleep", "600"])
        wait_for(lambda: Path(f"/proc/{beside.pid}/comm").read_text() == "sleep\n", 10, "sleep")
        result = ckptctl("check", "--pid", str(shape.pid), "--json").check().document["result"]
        (found,) = (one for one in result["findings"] if one["level"] == "warning")
        assert found["check"] == "mount-namespace"
        assert found["remedy"].startswith("Run ckptctl inside")

        within = ("nsenter", "--target", str(beside.pid), "--mount", "--")
        result = ckptctl("check", "--pid", str(shape.pid), "--json", prefix=within).check().document["result"]
        assert {one["level"] for one in result["findings"]} == {"ok"}
        ckptctl("dump", "--pid", str(shape.pid), prefix=within).check()
        at_the_dump = shape.steps()
        ckptctl("restore", "latest", prefix=within).check()
        shape.wait_steps(at_the_dump + 5)
        os.kill(beside.pid, signal.SIGKILL)
