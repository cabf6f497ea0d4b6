"""What a restore does with what it finds: files that grew or are gone, pids in use, pipes, damaged images."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from support import CommandLine, Jobs, wait_for
from support.shapes import Shape

pytestmark = pytest.mark.requires_criu

Start = Callable[..., AbstractContextManager[Shape]]


def saved_then_killed(shape: Shape, ckptctl: CommandLine) -> str:
    """Save the job while it runs, let it write ten more lines, kill it; its log then."""
    ckptctl("dump", "--pid", str(shape.pid), "--leave-running").check()
    shape.wait_steps(shape.steps() + 10)
    shape.job.kill()
    return shape.log.read_text()


def test_a_log_that_grew_is_put_back_and_the_rest_kept(counting: Shape, ckptctl: CommandLine) -> None:
    former = saved_then_killed(counting, ckptctl)
    report = ckptctl("restore", "latest", "--json").check().document["result"]
    [rolled] = report["rolled_back"]
    assert rolled["path"] == str(counting.log)
    kept = Path(rolled["tail"])
    assert former[: rolled["size_bytes"]] + kept.read_text() == former
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    counting.wait_steps(len(former.splitlines()))


def test_files_refuse_leaves_everything_as_it_is(counting: Shape, ckptctl: CommandLine) -> None:
    former = saved_then_killed(counting, ckptctl)
    refused = ckptctl("restore", "latest", "--files", "refuse").check(5)
    assert str(counting.log) in refused.stderr
    assert "--files roll-back" in refused.stderr
    assert counting.log.read_text() == former


def test_files_keep_leaves_the_log_and_goes_on_behind_it(
    counting: Shape, start_shape: Start, ckptctl: CommandLine
) -> None:
    former = saved_then_killed(counting, ckptctl)
    ckptctl("restore", "latest", "--files", "keep").check()
    wait_for(lambda: len(counting.log.read_text()) > len(former), 20, "more lines")
    assert counting.log.read_text().startswith(former)


def test_files_keep_works_for_a_log_that_is_not_appended_to(start_shape: Start, ckptctl: CommandLine) -> None:
    """CRIU compares the size of such a file and has no option not to."""
    with start_shape("truncated_log") as shape:
        shape.wait_steps(5)
        saved_then_killed(shape, ckptctl)
        ckptctl("restore", "latest", "--files", "keep").check()
        assert shape.job.running()


def test_a_log_that_somebody_writes_to_is_not_cut(counting: Shape, start_job: Jobs, ckptctl: CommandLine) -> None:
    former = saved_then_killed(counting, ckptctl)
    script = f"import time; f = open({str(counting.log)!r}, 'a'); print('open', flush=True); time.sleep(60)"
    other = start_job([sys.executable, "-c", script])
    other.wait_for_lines(1)
    refused = ckptctl("restore", "latest").check(5)
    assert str(other.pid) in refused.stderr
    assert counting.log.read_text() == former


def test_a_file_that_is_gone_is_named(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    aside = counting.log.rename(counting.log.with_name("aside"))
    refused = ckptctl("restore", "latest").check(5)
    assert f"{counting.log}, which the job had open, is not there" in refused.stderr
    aside.rename(counting.log)
    ckptctl("restore", "latest").check()


def test_a_log_that_was_rotated_is_refused(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    former = counting.log.read_text()
    counting.log.write_text("")
    assert "shorter than at the dump" in ckptctl("restore", "latest").check(5).stderr
    counting.log.write_text(former)
    ckptctl("restore", "latest").check()


def test_a_restore_that_fails_gives_the_log_its_tail_again(counting: Shape, ckptctl: CommandLine) -> None:
    former = saved_then_killed(counting, ckptctl)
    failed = ckptctl("restore", "latest", "--criu-option", "--no-such-option").check(9)
    assert "was not restored" in failed.stderr
    assert counting.log.read_text() == former
    ckptctl("restore", "latest").check()


def test_a_job_that_runs_is_not_brought_back_twice(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    refused = ckptctl("restore", "latest", "--files", "keep").check(15)
    assert f"The job runs already: process {counting.pid} " in refused.stderr
    assert "--new-pid-namespace" in refused.stderr
    counting.wait_steps(counting.steps() + 3)


def test_a_zombie_that_nobody_reaps_is_named_with_its_parent(
    start_job: Jobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    script = (
        "import subprocess, sys, time\n"
        "job = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print(job.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = start_job([sys.executable, "-c", script])
    pid = parent.wait_for_lines(1)[0]
    ended = ckptctl("dump", "--pid", pid).check()
    assert f"its parent {parent.pid} does not ask" in ended.stderr
    refused = ckptctl("restore", "latest").check(15)
    assert f"its parent {parent.pid} (python" in refused.stderr
    parent.signal(signal.SIGKILL)
    ckptctl("restore", "latest").check()


def test_beside_the_running_original(counting: Shape, start_shape: Start, ckptctl: CommandLine) -> None:
    """In a PID namespace of its own; both write to the log, which is therefore left alone."""
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    report = ckptctl("restore", "latest", "--new-pid-namespace", "--files", "keep", "--json").check().document["result"]
    assert report["pid"] != counting.pid
    assert counting.job.running()
    status = Path(f"/proc/{report['pid']}/status").read_text()
    assert f"NSpid:\t{report['pid']}\t{counting.pid}\n" in status


def test_in_and_out_of_a_pid_namespace_five_times(counting: Shape, ckptctl: CommandLine) -> None:
    pid = counting.pid
    for turn in range(5):
        steps = counting.wait_steps(counting.steps() + 5)
        ckptctl("dump", "--pid", str(pid), "--run", "again").check()
        assert counting.steps() >= steps
        where = ["--new-pid-namespace"] if turn % 2 == 0 else []
        pid = ckptctl("restore", "again/latest", *where, "--json").check().document["result"]["pid"]
    counting.wait_steps(counting.steps() + 5)


def test_output_that_went_to_a_pipe_goes_to_a_file(start_shape: Start, ckptctl: CommandLine) -> None:
    with start_shape("pipe_outside") as shape:
        shape.wait_steps(5)
        ckptctl("dump", "--pid", str(shape.pid)).check()
        [line] = ckptctl("restore", "latest", "--json").check().document["result"]["reconnected"]
        assert ".output/pipe-" in line
        shape.wait_steps(shape.steps() + 5)


def test_wait_ends_with_the_status_of_the_job_and_passes_signals_on(start_job: Jobs, ckptctl: CommandLine) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(42))\n"
        "n = 0\n"
        "while True: n += 1; print(n, flush=True); time.sleep(0.02)\n"
    )
    job = start_job([sys.executable, "-c", script])
    job.wait_for_lines(5)
    ckptctl("dump", "--pid", str(job.pid)).check()
    for words in ([], ["--new-pid-namespace"]):
        lines = len(job.lines())
        process = ckptctl.start("restore", "latest", "--wait", *words)
        wait_for(lambda: job.running() and len(job.lines()) > 5, 30, "the job")
        wait_for(lambda lines=lines: len(job.lines()) != lines, 30, "new lines")  # type: ignore[misc]
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 42
        assert not job.processes()


def test_wait_shows_what_went_to_a_pipe(start_job: Jobs, ckptctl: CommandLine, tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text("import time\nfor n in range(200): print(n, flush=True); time.sleep(0.02)\n")
    log = tmp_path / "log"
    job = start_job(["bash", "-c", f"{sys.executable} {script} | cat > {log}"])
    pid = wait_for(
        lambda: subprocess.run(
            ["pgrep", "-f", f"{sys.executable} {script}$"], capture_output=True, text=True
        ).stdout.split(),
        20,
        "python",
    )[-1]
    assert job.running()
    wait_for(lambda: len(log.read_text().splitlines()) > 10, 20, "lines")
    ckptctl("dump", "--pid", pid).check()
    restored = ckptctl("restore", "latest", "--wait", "--quiet").check()
    numbers = log.read_text().split() + [word for word in restored.stdout.split() if word.isdigit()]
    assert "199" in numbers


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_every_damaged_image_is_named_and_refused(damage: str, counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    [entry] = ckptctl.json("list")["result"]
    images = sorted((Path(entry["folder"]) / "images").iterdir())
    assert len(images) > 8
    for image in images:
        whole = image.read_bytes()
        if not whole:
            continue
        if damage == "flipped":
            middle = len(whole) // 2
            image.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        elif damage == "truncated":
            image.write_bytes(whole[:-1])
        else:
            image.unlink()
        verified = ckptctl("verify", "--read-data").check(13)
        assert f"images/{image.name}" in verified.stdout
        assert f"images/{image.name}" in ckptctl("restore", entry["id"]).check(13).stderr
        image.write_bytes(whole)
        image.chmod(0o600)
    ckptctl("restore", entry["id"]).check()


@pytest.mark.parametrize("where", ["its end", "its middle"])
def test_a_damaged_latest_falls_back_to_backup_and_says_so(where: str, counting: Shape, ckptctl: CommandLine) -> None:
    """Damage in the middle is found only when criu has been given what lies before it."""
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    ckptctl("dump", "--pid", str(counting.pid)).check()
    older, newer = ckptctl.json("list")["result"]
    pages = Path(newer["folder"], "images/pages.blocks")
    whole = bytearray(pages.read_bytes())
    if where == "its end":
        del whole[-1]
    else:
        whole[len(whole) // 2] ^= 1
    pages.unlink()  # what it shares with the older one stays as it is
    pages.write_bytes(whole)
    restored = ckptctl("restore", "latest").check()
    assert "is damaged" in restored.stderr
    assert older["id"] in restored.stdout
    counting.wait_steps(counting.steps() + 3)


def test_shared_memory_comes_back_after_a_reboot(start_shape: Start, ckptctl: CommandLine) -> None:
    """/dev/shm is empty then: what the job had there is part of the snapshot, and restores more than once."""
    memory = Path("/dev/shm")
    with start_shape("workers") as shape:
        shape.wait_steps(5)
        before = set(memory.iterdir())
        ckptctl("dump", "--pid", str(shape.pid)).check()
        kept = ckptctl.json("show", "latest")["result"]["manifest"]["kept_files"]
        assert kept
        for _ in range(2):
            for item in kept:
                Path(item["path"]).unlink(missing_ok=True)
            ckptctl("restore", "latest", "--files", "roll-back").check()
            shape.wait_steps(shape.steps() + 3)
            shape.job.kill()
        for left in set(memory.iterdir()) - before:
            left.unlink()
