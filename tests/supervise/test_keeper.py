"""The keeper of a job: signals, orphans, and how the job ended."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptctl.store.layout import RunFolder, Store
from ckptctl.supervise.job import find_keeper, find_strays
from support import python, wait_for
from support.jobs import state
from support.kept import Kept, KeptJobs, parent, status_field

KEEPER = Path(__file__).parents[2] / "ckptctl" / "supervise" / "keeper.py"
SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
    signal.SIGALRM, signal.SIGTSTP, signal.SIGRTMIN + 1,
)  # fmt: skip
TELLS_SIGNALS = """
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, lambda received, frame: print(received, flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"""
ENDS_WELL = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
print("ready", flush=True)
time.sleep(1000)
"""
# Leaves a process behind whose parent is gone, which says who its new parent is, then does what it is told.
LEAVES_ORPHAN = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: print("TERM", flush=True))
    else:
        signal.signal(signal.SIGTERM, lambda *_: (print("TERM", flush=True), os._exit(0)))
    print("orphan", os.getpid(), flush=True)
    while True:
        time.sleep(float(sys.argv[1]))
        if "brief" in sys.argv:
            print("done", flush=True)
            os._exit(0)
os.wait()
if "stay" in sys.argv:
    time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("code", "status"),
    [("0", 0), ("3", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 15)", -15), ("os.abort()", -6)],
)
def test_the_end_is_written_down_and_repeated(start_kept: KeptJobs, code: str, status: int) -> None:
    before = time.time()
    kept = start_kept(*python(f"import os, sys, time; time.sleep(0.1); sys.exit({code})"))
    assert kept.launched.watch.wait(30)
    ended = kept.launched.watch.job_exit()
    assert ended is not None
    assert (ended.pid, ended.status) == (kept.job, status)
    assert before <= ended.began_s < ended.ended_s <= time.time()
    assert kept.launched.watch.keeper_status == status
    assert stat.S_IMODE(kept.run.job_exit.stat().st_mode) == 0o600
    assert sorted(path.name for path in kept.run.path.iterdir()) == ["job-exit.json", "output"], "nothing half-written"


def test_the_end_can_be_read_by_others(start_kept: KeptJobs) -> None:
    kept = start_kept(*python("import sys; sys.exit(5)"))
    kept.launched.watch.wait(30)
    document = json.loads(kept.run.job_exit.read_bytes())
    assert (document["version"], document["code"], document["signal"]) == (1, 5, None)


def test_a_keeper_that_cannot_write_says_so_and_ends_as_the_job(start_kept: KeptJobs) -> None:
    kept = start_kept(*python("import time, sys; time.sleep(0.5); sys.exit(4)"))
    kept.run.job_exit.mkdir()
    assert kept.launched.watch.wait(30)
    assert kept.launched.watch.keeper_status == 4
    assert "job-exit.json cannot be written: Is a directory" in kept.errors()


def test_every_signal_goes_on_to_the_job_alone(start_kept: KeptJobs) -> None:
    kept = start_kept(*python(TELLS_SIGNALS))
    kept.wait_for_lines(1)
    for count, number in enumerate(SIGNALS, 2):
        os.kill(kept.keeper, number)
        assert kept.wait_for_lines(count)[-1] == str(int(number))
    assert not kept.launched.watch.wait(0)


def test_a_signal_that_ends_the_job_ends_the_keeper_likewise(start_kept: KeptJobs) -> None:
    kept = start_kept("sleep", "1000")
    os.kill(kept.keeper, signal.SIGINT)
    assert kept.wait_exit().status == -signal.SIGINT
    assert kept.launched.watch.wait(10)


def test_sigcont_is_not_passed_on(start_kept: KeptJobs) -> None:
    """A restore sends it to every process that is to run, and a job that was stopped is to stay so."""
    kept = start_kept(*python(TELLS_SIGNALS))
    kept.wait_for_lines(1)
    os.kill(kept.job, signal.SIGSTOP)
    wait_for(lambda: state(kept.job) == "T", 10, "the stop")
    os.kill(kept.keeper, signal.SIGCONT)
    os.kill(kept.keeper, signal.SIGUSR1)
    wait_for(lambda: int(status_field(kept.job, "ShdPnd"), 16), 10, "the second signal")
    assert state(kept.job) == "T"
    os.kill(kept.job, signal.SIGCONT)
    assert sorted(kept.wait_for_lines(3)[1:]) == sorted(["10", "18"]), "its own SIGCONT and the signal behind it"


def test_a_job_that_signals_its_own_group_does_not_hit_the_keeper(start_kept: KeptJobs) -> None:
    kept = start_kept("bash", "-c", "sleep 1000 & kill -9 0")
    assert kept.wait_exit().status == -9
    assert kept.launched.watch.wait(10), "the keeper wrote that down and ended"


def test_orphans_are_adopted_and_outlive_the_job_only_so_long(start_kept: KeptJobs) -> None:
    kept = start_kept(*python(LEAVES_ORPHAN, "1000"), linger_s=1.0)
    orphan = orphan_of(kept)
    assert parent(orphan) == kept.keeper
    assert kept.wait_exit().status == 0
    assert not kept.launched.watch.wait(0.2), "it may still end by itself"
    assert kept.launched.watch.wait(30)
    assert kept.lines()[1:] == ["TERM"]
    assert state(orphan) == "X"


def test_an_orphan_that_ends_by_itself_gets_no_signal(start_kept: KeptJobs) -> None:
    kept = start_kept(*python(LEAVES_ORPHAN, "0.5", "brief"), linger_s=30)
    assert kept.launched.watch.wait(20)
    assert kept.lines()[1:] == ["done"]


def test_an_orphan_that_ignores_sigterm_is_killed_with_its_own_children(start_kept: KeptJobs) -> None:
    kept = start_kept("bash", "-c", "(trap '' TERM; sleep 1000 & sleep 1000; sleep 1000) & exit 7", linger_s=0.5)
    assert kept.wait_exit().status == 7
    assert kept.launched.watch.wait(30)
    assert kept.processes() == []


def test_sigterm_shortens_the_wait_for_orphans(start_kept: KeptJobs) -> None:
    kept = start_kept(*python(LEAVES_ORPHAN, "1000", "stubborn"), linger_s=600)
    orphan_of(kept)
    kept.wait_exit()
    os.kill(kept.keeper, signal.SIGTERM)
    kept.wait_for_lines(2)
    assert not kept.launched.watch.wait(0.5), "and once only, though it is looked at again and again"
    os.kill(kept.keeper, signal.SIGTERM)
    assert kept.launched.watch.wait(20)
    assert kept.lines()[1:] == ["TERM"]


def test_a_shell_that_is_ended_takes_its_program_with_it(start_kept: KeptJobs) -> None:
    """SIGTERM ends a shell at once, and its program, which does the work, would hear of it only much later."""
    kept = start_kept("bash", "-c", f"{sys.executable} -c '{ENDS_WELL}'; true", linger_s=600)
    kept.wait_for_lines(1)
    os.kill(kept.keeper, signal.SIGTERM)
    assert kept.wait_exit().status == -signal.SIGTERM
    assert kept.launched.watch.wait(20)
    assert kept.lines() == ["ready", "saved"]


def test_a_storm_of_orphans_is_reaped(start_kept: KeptJobs) -> None:
    storm = "import os, time\nfor _ in range(300):\n    if os.fork() == 0:\n        os.fork()\n        os._exit(0)\n"
    reap = "for _ in range(300):\n    os.wait()\nprint('over', flush=True)\ntime.sleep(1000)"
    kept = start_kept(*python(storm + reap))
    kept.wait_for_lines(1)
    children = Path(f"/proc/{kept.keeper}/task/{kept.keeper}/children")
    wait_for(lambda: children.read_text().split() == [str(kept.job)], 20, "no child but the job")


def test_the_job_goes_on_without_its_keeper(start_kept: KeptJobs) -> None:
    kept = start_kept(*python(TELLS_SIGNALS))
    kept.wait_for_lines(1)
    os.kill(kept.keeper, signal.SIGKILL)
    assert kept.launched.watch.wait(10)
    assert kept.launched.watch.job_exit() is None
    os.kill(kept.job, signal.SIGUSR1)
    kept.wait_for_lines(2)


def test_what_lost_its_keeper_is_known_by_whatever_name_the_store_has(start_kept: KeptJobs, tmp_path: Path) -> None:
    """Where it were not, the job would be brought back beside itself."""
    kept = start_kept(*python(TELLS_SIGNALS))
    kept.wait_for_lines(1)
    os.kill(kept.keeper, signal.SIGKILL)
    assert kept.launched.watch.wait(10)
    alias = tmp_path / "alias"
    alias.symlink_to(kept.run.path.parents[1])
    assert [one.pid for one in find_strays(Store(alias).run("gpt"))] == [kept.job]
    assert find_strays(Store(alias).run("other")) == ()


def test_a_folder_that_the_job_left_may_go(start_kept: KeptJobs, tmp_path: Path) -> None:
    folder = tmp_path / "brief"
    folder.mkdir()
    kept = start_kept(*python("import os, time; os.chdir('/'); print(1, flush=True); time.sleep(99)"), cwd=folder)
    kept.wait_for_lines(1)
    wait_for(lambda: Path(f"/proc/{kept.keeper}/cwd").readlink() == Path("/"), 10, "the keeper's leaving")


def test_the_keeper_is_small_and_holds_nothing_open(start_kept: KeptJobs) -> None:
    kept = start_kept("sleep", "1000")
    links = {path.name: str(path.readlink()) for path in Path(f"/proc/{kept.keeper}/fd").iterdir()}
    assert links == {"0": "/dev/null", "1": str(kept.run.stdout), "2": str(kept.run.stderr)}
    rollup = Path(f"/proc/{kept.keeper}/smaps_rollup").read_text()
    anonymous_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))
    assert anonymous_kb < 8 << 10, "every snapshot holds it"
    maps = Path(f"/proc/{kept.keeper}/maps").read_text()
    assert str(Path(__file__).parents[2] / "ckptctl") not in maps, "an upgrade of ckptctl must not keep it from restore"


def test_pkill_of_the_command_does_not_mean_the_keeper(start_kept: KeptJobs) -> None:
    kept = start_kept(sys.executable, "-c", "import time; time.sleep(1000)", "train.py")
    assert b"train.py" in Path(f"/proc/{kept.job}/cmdline").read_bytes()
    assert b"train.py" not in Path(f"/proc/{kept.keeper}/cmdline").read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 4, 20, -1])
def test_a_specification_that_is_cut_off_starts_nothing(cut: int, tmp_path: Path) -> None:
    """The end of ckptctl in the middle of writing it."""
    whole = specification(tmp_path, "touch", str(tmp_path / "started"))
    status, said, errors = run_keeper(whole[: len(whole) - 3 + cut] if cut < 0 else whole[:cut])
    assert (status, said, errors) == (1, b"", b"")
    assert not (tmp_path / "started").exists()


def test_a_job_goes_on_though_nobody_hears_that_it_started(tmp_path: Path) -> None:
    """The end of ckptctl before it has read so."""
    whole = specification(tmp_path, "sh", "-c", f"sleep 0.3; touch {tmp_path / 'started'}; exit 6")
    assert run_keeper(whole, heard=False)[0] == 6
    assert (tmp_path / "started").exists()
    assert json.loads((tmp_path / "job-exit.json").read_bytes())["code"] == 6


def specification(folder: Path, *command: str) -> bytes:
    """What the keeper reads: exit file, time for orphans, umask, no filter, one variable, the command."""
    fields = (str(folder / "job-exit.json"), "1", "18", "", "1", f"PATH={os.environ['PATH']}", *command, "end")
    return "\0".join(fields).encode()


def run_keeper(text: bytes, *, heard: bool = True) -> tuple[int, bytes, bytes]:
    """Run the keeper to its end on such a text. Its status, what it reported, and its standard error."""
    reading, writing = os.pipe()
    hearing, saying = os.pipe()
    words = [sys.executable, "-I", "-S", str(KEEPER), "gpt", str(reading), str(saying)]
    process = subprocess.Popen(words, pass_fds=(reading, saying), stderr=subprocess.PIPE)
    for descriptor in (reading, saying):
        os.close(descriptor)
    if not heard:
        os.close(hearing)
    os.write(writing, text)
    os.close(writing)
    errors = process.communicate(timeout=30)[1]
    return process.returncode, os.read(hearing, 100) if heard else b"", errors


def orphan_of(kept: Kept) -> int:
    """The orphan that the job has left, once its parent is gone."""
    word, number = kept.wait_for_lines(1)[0].split()
    assert word == "orphan"
    wait_for(lambda: parent(int(number)) == kept.keeper, 10, "the adoption")
    return int(number)


def test_a_keeper_is_known_when_its_log_was_renamed_or_removed(start_kept: KeptJobs) -> None:
    """As programs do that keep logs small; the job must not be taken for gone, and be brought back beside itself."""
    kept = start_kept(*python("import time; print(1, flush=True); time.sleep(99)"))
    kept.wait_for_lines(1)
    rotated = kept.run.stdout.rename(kept.run.stdout.with_name("stdout.log.1"))
    assert find_keeper(kept.run) == kept.launched.keeper
    rotated.unlink()
    assert find_keeper(kept.run) == kept.launched.keeper
    assert find_keeper(RunFolder(kept.run.path.with_name("other"))) is None
