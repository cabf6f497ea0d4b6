"""Starting a job: what it gets, what is kept from it, and what is said where it cannot be started."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.files import FileTrouble
from ckptctl.host.gpu import Gpu, GpuFacts
from ckptctl.process.identity import ProcessId, identify
from ckptctl.supervise.exits import Watch
from ckptctl.supervise.launch import (
    KeeperFailed,
    ProgramNotExecutable,
    ProgramNotFound,
    cuda_launcher,
)
from ckptctl.supervise.seccomp import without_io_uring
from support import python, wait_for
from support.jobs import state
from support.kept import KeptJobs, parent, status_field
from support.seccomp import allows

EXAMPLES = Path(__file__).parents[2] / "examples"
PRINT_ENVIRONMENT = "import os; print(*(f'{k}={v}' for k, v in os.environ.items()), sep='\\n')"
IO_URING_SETUP = 425
# Asks for a ring with no place for its parameters: EFAULT where the kernel has io_uring.
ASK_FOR_RING = (
    "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall(425, 1, None); print(ctypes.get_errno())"
)
# The same by the 32-bit entry of the kernel.
ASK_FOR_RING_32 = """
#include <stdio.h>
int main(void)
{
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(425), "b"(1), "c"(0) : "memory");
	printf("%d\\n", -result);
	return 0;
}
"""


def test_the_job_gets_its_environment_and_where_to_report(start_kept: KeptJobs) -> None:
    kept = start_kept("/usr/bin/env", "-0", environment={"LC_ALL": "C", "ODD": "a\nb=c", "LD_LIBRARY_PATH": "/nowhere"})
    kept.launched.watch.wait(30)
    given = dict(item.split("=", 1) for item in kept.run.stdout.read_text().split("\0") if item)
    assert given.pop("CKPTCTL_STATUS") == str(kept.run.job_status)
    assert given.pop("CKPTCTL_RUN") == "gpt"
    assert given["ODD"] == "a\nb=c"
    assert given["LD_LIBRARY_PATH"] == "/nowhere"
    assert given.keys() - os.environ.keys() <= {"LC_ALL", "ODD", "LD_LIBRARY_PATH", "CKPTCTL_TEST_JOB"}


def test_what_is_preloaded_into_the_job_is_not_preloaded_into_the_keeper(start_kept: KeptJobs) -> None:
    kept = start_kept("sleep", "1000", environment={"LD_PRELOAD": "libm.so.6"})
    wait_for(lambda: "libm.so" in Path(f"/proc/{kept.job}/maps").read_text(), 10, "the library in the job")
    assert "LD_PRELOAD" not in Path(f"/proc/{kept.keeper}/environ").read_text()


def test_the_job_inherits_no_descriptor_and_no_signal(start_kept: KeptJobs) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        kept = start_kept("sleep", "1000")
    finally:
        signal.signal(signal.SIGHUP, former)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    expected = {"0": "/dev/null", "1": str(kept.run.stdout), "2": str(kept.run.stderr)}
    wait_for(lambda: descriptors(kept.job) == expected, 10, "no more than these, once its libraries are loaded")
    # The C library keeps 32 and 33 to itself: who runs the tests may have them ignored, and nobody can change that.
    assert int(status_field(kept.job, "SigIgn"), 16) & ~(0b11 << 31) == 0
    assert int(status_field(kept.job, "SigBlk"), 16) == 0


def test_the_job_gets_its_umask_and_its_folder(start_kept: KeptJobs, tmp_path: Path) -> None:
    kept = start_kept("sh", "-c", "umask; pwd -P", umask=0o027, cwd=tmp_path)
    assert kept.wait_exit().status == 0
    assert kept.lines() == ["0027", str(tmp_path.resolve())]


def test_keeper_and_job_are_in_sessions_of_their_own(start_kept: KeptJobs) -> None:
    kept = start_kept("sleep", "1000")
    assert os.getsid(kept.keeper) == kept.keeper, "a tree whose root leads its session can be dumped"
    assert os.getsid(kept.job) == kept.job
    assert parent(kept.job) == kept.keeper


def test_the_logs_are_private_and_go_on(start_kept: KeptJobs) -> None:
    for word in ("one", "two"):
        kept = start_kept("sh", "-c", f"echo {word}; echo {word} >&2")
        assert kept.launched.watch.wait(30)
    assert kept.lines() == ["one", "two"]
    assert kept.errors() == "one\ntwo\n"
    for log in (kept.run.stdout, kept.run.stderr):
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.run.output.stat().st_mode) == 0o700


def test_a_log_that_is_a_link_is_not_followed(start_kept: KeptJobs, tmp_path: Path) -> None:
    start_kept.run.output.mkdir()
    start_kept.run.stdout.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileTrouble, match=r"stdout.log cannot be opened"):
        start_kept("true")
    assert not (tmp_path / "elsewhere").exists()


def test_the_end_of_an_earlier_job_is_forgotten(start_kept: KeptJobs) -> None:
    first = start_kept("false")
    first.launched.watch.wait(30)
    assert first.run.job_exit.exists()
    second = start_kept("sleep", "1000")
    assert second.launched.watch.job_exit() is None


@pytest.mark.parametrize(
    ("program", "error", "status", "hint"),
    [
        ("no-such-program", ProgramNotFound, 127, "PATH"),
        ("./no-such-program", ProgramNotFound, 127, "spelled"),
        ("./wrong-interpreter", ProgramNotFound, 127, "interpreter"),
        ("./not-executable", ProgramNotExecutable, 126, "chmod"),
        ("./no-format", ProgramNotExecutable, 126, "#!"),
        (".", ProgramNotExecutable, 126, "chmod"),
    ],
)
def test_a_program_that_cannot_be_executed(
    program: str, error: type[CkptctlError], status: int, hint: str, start_kept: KeptJobs, tmp_path: Path
) -> None:
    for name, text, mode in (
        ("wrong-interpreter", "#!/no/such/python\n", 0o755),
        ("not-executable", "#!/bin/sh\n", 0o644),
        ("no-format", "echo\n", 0o755),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    with pytest.raises(error) as caught:
        start_kept(program, cwd=tmp_path)
    assert caught.value.exit_status == status
    assert hint in (caught.value.hint or "")
    assert program in caught.value.message
    assert not start_kept.run.job_exit.exists(), "no job has ended"


def test_the_statuses_are_those_of_a_shell() -> None:
    assert (ExitStatus.NOT_EXECUTABLE, ExitStatus.NOT_FOUND) == (126, 127)


def test_a_working_folder_that_is_missing_is_named(start_kept: KeptJobs, tmp_path: Path) -> None:
    with pytest.raises(FileTrouble, match="gone"):
        start_kept("true", cwd=tmp_path / "gone")


def test_no_job_starts_before_its_keeper_is_written_down(start_kept: KeptJobs, tmp_path: Path) -> None:
    seen: list[ProcessId] = []

    def fail(keeper: ProcessId) -> None:
        seen.append(keeper)
        assert identify(keeper.pid) == keeper
        raise FileTrouble("The disk is full.", hint="Free space.")

    with pytest.raises(FileTrouble, match="disk is full"):
        start_kept("touch", str(tmp_path / "started"), on_keeper=fail)
    assert state(seen[0].pid) == "X"
    assert not (tmp_path / "started").exists()


def test_a_keeper_that_dies_at_once_is_an_error(start_kept: KeptJobs) -> None:
    with pytest.raises(KeeperFailed, match="before the job was started"):
        start_kept("true", on_keeper=lambda keeper: os.kill(keeper.pid, signal.SIGKILL))


def test_a_keeper_that_is_no_child_of_ours_is_waited_for(start_kept: KeptJobs, tmp_path: Path) -> None:
    """As the next ckptctl does, when this one was killed."""
    starter = """
import os, sys
from pathlib import Path
from ckptctl.store.layout import RunFolder
from ckptctl.supervise.launch import Launch, start
run = RunFolder(Path(sys.argv[1]))
launched = start(Launch(("sh", "-c", "sleep 1; exit 9"), run, dict(os.environ), Path("/")), lambda keeper: None)
print(launched.keeper.pid, flush=True)
os._exit(0)
"""
    run = start_kept.run
    done = subprocess.run([sys.executable, "-c", starter, run.path], capture_output=True, text=True, check=True)
    with Watch(identify(int(done.stdout)), run.job_exit) as watch:
        assert not watch.wait(0)
        assert watch.job_exit() is None
        assert watch.wait(30)
        ended = watch.job_exit()
    assert ended is not None
    assert ended.status == 9
    assert watch.keeper_status is None


# io_uring


@pytest.mark.parametrize("number", [IO_URING_SETUP, IO_URING_SETUP | 0x4000_0000])
def test_the_filter_refuses_one_call_by_both_its_numbers(number: int) -> None:
    assert allows(without_io_uring(), number) == errno.ENOSYS


@pytest.mark.parametrize("number", [0, 424, 426, 427, 1 << 30, (1 << 32) - 1])
def test_the_filter_allows_every_other_call(number: int) -> None:
    assert allows(without_io_uring(), number) == 0


def test_for_the_job_the_kernel_has_no_io_uring(start_kept: KeptJobs) -> None:
    assert asked(start_kept, allow_io_uring=True) == "14", "this kernel has it"
    assert asked(start_kept, allow_io_uring=False) == str(errno.ENOSYS)


def test_nor_has_it_for_32_bit_programs(start_kept: KeptJobs, tmp_path: Path) -> None:
    source = tmp_path / "ask.c"
    source.write_text(ASK_FOR_RING_32)
    built = subprocess.run(["cc", "-o", tmp_path / "ask", source], capture_output=True)
    if built.returncode or os.uname().machine != "x86_64":
        pytest.skip("no compiler for a 32-bit call")
    answers = []
    for allowed in (True, False):
        kept = start_kept(tmp_path / "ask", allow_io_uring=allowed)
        assert kept.wait_exit().status == 0
        answers.append(kept.lines()[-1])
    if answers[0] == str(errno.ENOSYS):
        pytest.skip("this kernel has no io_uring for 32-bit programs")
    assert answers == [str(errno.EFAULT), str(errno.ENOSYS)]


def test_only_the_job_is_under_the_filter(start_kept: KeptJobs) -> None:
    kept = start_kept("sleep", "1000")
    assert kept.launched.io_uring_trouble is None
    assert status_field(kept.job, "Seccomp") == "2"
    assert status_field(kept.keeper, "Seccomp") == status_field(os.getpid(), "Seccomp")
    free = start_kept("sleep", "1000", allow_io_uring=True)
    assert status_field(free.job, "Seccomp") == status_field(os.getpid(), "Seccomp")


@pytest.mark.parametrize("administers", [True, False])
def test_programs_gain_rights_under_it_unless_the_kernel_forbids_that(administers: bool, start_kept: KeptJobs) -> None:
    answer = elsewhere(start_kept, "" if administers else "libc.prctl(24, 21, 0, 0, 0)  # CAP_SYS_ADMIN goes at execve")
    assert answer == ["38", "1", "0" if administers else "1"]


def test_it_adds_to_a_filter_that_is_there(start_kept: KeptJobs) -> None:
    wrapper = EXAMPLES / "without_io_uring.py"
    answer = elsewhere(start_kept, "", sys.executable, str(wrapper))
    assert answer == ["38", "2", "1"]


# The job file for CUDA


GPU = Gpu(0, "GPU-1", "H100", 1, 1, 0, None, None, None)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (GpuFacts("590.44.01", (GPU,)), True),
        (GpuFacts("610.57", (GPU,)), True),
        (GpuFacts("580.159.04", (GPU,)), False),
        (GpuFacts("590.44.01", ()), False),
        (GpuFacts(None, (), "no driver"), False),
    ],
)
def test_who_gets_a_job_file(facts: GpuFacts, found: bool, tmp_path: Path) -> None:
    utility = tmp_path / "cuda-checkpoint"
    utility.write_text("#!/bin/sh\n")
    utility.chmod(0o755)
    assert cuda_launcher(facts, str(tmp_path)) == (utility if found else None)
    assert cuda_launcher(facts, str(tmp_path / "empty")) is None


def test_every_descendant_can_open_the_job_file(start_kept: KeptJobs, tmp_path: Path) -> None:
    """Launchers close descriptors that their workers do not know of, so the file is not named by one of theirs."""
    worker = python("import os; print(open(os.environ['CUDA_CHECKPOINT_JOB_FILE']).read(), flush=True)")
    launcher = f"import subprocess, time; subprocess.run({worker!r}, close_fds=True); time.sleep(1000)"
    kept = start_kept(*python(launcher), cuda_launcher=fake_utility(tmp_path))
    assert kept.launched.job_file
    assert kept.wait_for_lines(1) == ["job file"]
    assert descriptors(kept.job).keys() == {"0", "1", "2"}
    assert parent(kept.job) == kept.keeper


READ_JOB_FILE = "import os; print(open(os.environ['CUDA_CHECKPOINT_JOB_FILE']).read(), flush=True)"


def test_a_job_file_that_we_were_started_with_is_handed_on(start_kept: KeptJobs) -> None:
    """`cuda-checkpoint --launch-job ckptctl run ...`"""
    descriptor = os.memfd_create("job", 0)
    os.write(descriptor, b"ours")
    given = {"CUDA_CHECKPOINT_JOB_FILE": f"/proc/self/fd/{descriptor}"}
    try:
        kept = start_kept(*python(READ_JOB_FILE), environment=given, cuda_launcher=Path("/not/asked"))
    finally:
        os.close(descriptor)
    assert kept.launched.job_file
    assert kept.wait_for_lines(1) == ["ours"]


def test_a_job_file_that_the_user_has_made_is_kept(start_kept: KeptJobs, tmp_path: Path) -> None:
    (tmp_path / "job").write_text("theirs")
    given = {"CUDA_CHECKPOINT_JOB_FILE": str(tmp_path / "job")}
    kept = start_kept(*python(READ_JOB_FILE), environment=given, cuda_launcher=Path("/not/asked"))
    assert kept.launched.job_file
    assert kept.wait_for_lines(1) == ["theirs"]


def test_a_job_file_that_is_closed_is_no_obstacle(start_kept: KeptJobs) -> None:
    kept = start_kept("sh", "-c", "echo ran", environment={"CUDA_CHECKPOINT_JOB_FILE": "/proc/self/fd/987"})
    assert kept.wait_for_lines(1) == ["ran"]


def test_a_utility_that_fails_does_not_keep_the_job_from_running(start_kept: KeptJobs, tmp_path: Path) -> None:
    utility = tmp_path / "cuda-checkpoint"
    utility.write_text("#!/bin/sh\necho 'Error initializing CUDA' >&2\nexit 255\n")
    utility.chmod(0o755)
    kept = start_kept("sh", "-c", "echo ran", cuda_launcher=utility)
    assert not kept.launched.job_file
    assert kept.wait_for_lines(1) == ["ran"]
    assert kept.errors() == "Error initializing CUDA\n"


def descriptors(pid: int) -> dict[str, str]:
    """What a process has open."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = str(path.readlink())
    return found


def asked(start_kept: KeptJobs, *, allow_io_uring: bool) -> str:
    """What the kernel answers to a job that asks for a ring."""
    kept = start_kept(*python(ASK_FOR_RING), allow_io_uring=allow_io_uring)
    assert kept.wait_exit().status == 0
    return kept.lines()[-1]


def elsewhere(start_kept: KeptJobs, prepare: str, *wrapper: str) -> list[str]:
    """Start a job from another process. What it is answered, how many filters are on it, whether it can gain rights."""
    script = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
if len(sys.argv) == 2:
    {prepare or "pass"}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "again"])
from pathlib import Path
from ckptctl.store.layout import RunFolder
from ckptctl.supervise.launch import Launch, start
job = '''{ASK_FOR_RING}
for line in open('/proc/self/status'):
    if line.startswith(('Seccomp_filters', 'NoNewPrivs')):
        print(line.split()[1])
'''
run = RunFolder(Path(sys.argv[1]))
launched = start(Launch((sys.executable, "-c", job), run, dict(os.environ), Path("/")), lambda keeper: None)
assert launched.io_uring_trouble is None
launched.watch.wait(30)
"""
    run = start_kept.run
    subprocess.run([*wrapper, sys.executable, "-c", script, run.path], check=True)
    answer, no_new_rights, filters = run.stdout.read_text().splitlines()
    return [answer, filters, no_new_rights]


def fake_utility(folder: Path) -> Path:
    """What `--launch-job` does: a file in memory, named in the environment, and the program in its own place."""
    utility = folder / "cuda-checkpoint"
    utility.write_text(f"""#!{sys.executable}
import os, sys
assert sys.argv[1] == "--launch-job"
descriptor = os.memfd_create("job", 0)
os.write(descriptor, b"job file")
os.execve(sys.argv[2], sys.argv[2:], {{**os.environ, "CUDA_CHECKPOINT_JOB_FILE": f"/proc/self/fd/{{descriptor}}"}})
""")
    utility.chmod(0o755)
    return utility
