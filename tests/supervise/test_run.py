"""`ckptctl run` from the outside: how it begins and ends, what it shows, what the job gets, who looks after it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import CommandLine, wait_for
from support.command_line import PROGRAM
from support.jobs import state
from support.supervised import Supervised, log_of, trains

pytestmark = pytest.mark.requires_criu

JOB = trains(60, 0.02)


def shell(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


@pytest.mark.parametrize(
    ("command", "status", "record"),
    [("exit 0", 0, "finished"), ("exit 3", 3, "died"), ("kill -9 $$", 137, "died"), ("kill -TERM $$", 143, "died")],
)
def test_the_status_of_the_job_is_that_of_run(command: str, status: int, record: str, supervise: Supervised) -> None:
    supervise(job=shell(command)).check(status)
    assert supervise.record.state == record
    supervise.require_nothing_left()


def test_a_program_that_is_not_there_is_no_run(supervise: Supervised) -> None:
    assert supervise(job=["/no/such/program"]).wait() == 127
    assert supervise.record.state == "not started"
    assert supervise.record.job is None
    supervise(job=shell("exit 0")).check(0)


def test_output_is_shown_live_and_whole(supervise: Supervised) -> None:
    (supervise.folder / "job.py").write_text(
        "import os, sys, time\n"
        "print('first', flush=True)\n"
        "print('error', file=sys.stderr, flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "sys.stdout.write('x' * 200000 + '\\nno end of line')\n"
    )
    ran = supervise(job=[sys.executable, "job.py"])
    wait_for(lambda: ran.shown == ["first"], 30, "the first line while the job runs")
    wait_for(lambda: "error" in ran.said, 30, "the job's standard error on that of ckptctl")
    (supervise.folder / "go").touch()
    ran.check(0)
    assert ran.stdout.read_text() == "first\n" + "x" * 200000 + "\nno end of line"
    assert supervise.run.stdout.read_text() == ran.stdout.read_text()


def test_quiet_shows_nothing_of_it(supervise: Supervised) -> None:
    ran = supervise("--quiet", job=trains(3, 0)).check(0)
    assert (ran.stdout.read_text(), ran.said) == ("", "")
    assert supervise.log() == log_of(3)


def test_the_job_has_the_callers_place_and_its_own_streams(supervise: Supervised) -> None:
    command = 'umask; pwd; echo "$COLOUR"; echo "$CKPTCTL_RUN" "$CKPTCTL_STATUS"; readlink /proc/self/fd/0'
    ran = supervise(
        job=shell(command), environment={"COLOUR": "blue"}, preexec_fn=lambda: os.umask(0o027), stdin=subprocess.PIPE
    )
    ran.check(0)
    umask, folder, colour, own, stdin = ran.shown
    assert (umask, folder, colour) == ("0027", str(supervise.folder), "blue")
    assert own == f"gpt {supervise.run.job_status}"
    assert stdin == "/dev/null"


def test_options_behind_the_dashes_are_the_jobs(supervise: Supervised) -> None:
    ran = supervise(job=["printf", "%s\\n", "--json", "--quiet", "--help", "--run", "other"]).check(0)
    assert ran.shown == ["--json", "--quiet", "--help", "--run", "other"]


def test_words_that_are_no_options_need_no_dashes(ckptctl: CommandLine) -> None:
    done = ckptctl("run", "--run", "gpt", "echo", "hello").check(0)
    assert done.stdout == "hello\n"


def test_what_was_finished_is_not_run_again(supervise: Supervised) -> None:
    supervise("--every", "5steps", job=trains(15, 0.02)).check(0)
    log = supervise.log()
    again = supervise(job=trains(15, 0.02)).check(0)
    assert "has come to its end already; --no-resume starts it from the beginning" in again.said
    assert supervise.log() == log
    (other := supervise.folder / "other").mkdir()
    assert (
        f"started in {supervise.folder}, not here in {other}"
        in supervise(job=trains(15, 0.02), cwd=other).check(0).said
    )
    anew = supervise("--no-resume", job=trains(15, 0.02)).check(0)
    assert "starts from the beginning, as asked" in anew.said
    assert supervise.log() == log + log


def test_what_was_finished_and_brought_back_by_hand_is_looked_after(
    supervise: Supervised, ckptctl: CommandLine
) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    supervise.allow(None)
    first.check(0)
    supervise.allow(10)
    ckptctl("restore", f"gpt/{supervise.snapshots[0]}").check()
    second = supervise(job=JOB, until=10)
    second.wait_said("still runs")
    supervise.allow(None)
    second.check(0)
    assert supervise.log() == log_of(60)


def test_a_new_course_does_not_go_back_to_the_former_one(supervise: Supervised) -> None:
    supervise("--every", "5steps", job=trains(15, 0.02)).check(0)
    second = supervise("--no-resume", job=JOB, until=5)
    second.wait_said("starts from the beginning")
    supervise.wait_log(20)
    # What is in the log from before is not how far this course is.
    assert (supervise.record.progress.step or 0) < 15
    supervise.kill_all()
    third = supervise("--every", "5steps", job=JOB)
    third.wait_said("starts from the beginning, it has no snapshot yet")
    supervise.save_each(third, 1, every=5)
    supervise.kill_all()
    fourth = supervise(job=JOB).check(0)
    assert f"goes on from {third.saved[-1]}" in fourth.said
    assert supervise.log()[-60:] == log_of(60)


def test_a_job_that_lives_is_not_started_anew(supervise: Supervised) -> None:
    first = supervise(job=JOB, until=5)
    supervise.wait_step(5)
    first.signal(signal.SIGKILL)
    first.wait()
    second = supervise("--no-resume", job=JOB, until=5)
    assert second.wait() == 11
    assert f"still runs (pid {supervise.keeper()})" in second.said
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_a_job_that_lives_is_taken_over(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    record = supervise.record
    first.signal(signal.SIGKILL)
    first.wait()
    second = supervise("--every", "10steps", job=JOB, until=19)
    second.wait_said("taken over")
    supervise.save_at(second, (20,))
    supervise.allow(None)
    second.check(0)
    assert record.job is not None
    assert f"(pid {record.job.pid})" in second.said
    assert supervise.log() == log_of(60)
    # The schedule goes on where it was: no step is saved twice.
    steps = supervise.steps(supervise.snapshots)
    assert steps[:2] == [10, 20]
    assert len({step // 10 for step in steps}) == len(steps)


def test_a_job_that_ended_unattended_is_known_to_have_ended(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    first.signal(signal.SIGKILL)
    first.wait()
    supervise.allow(None)
    wait_for(lambda: not supervise.processes(), 60, "the end of the job")
    second = supervise("--every", "10steps", job=JOB).check(0)
    assert "has ended while nobody looked after it" in second.said
    assert "goes on from" not in second.said
    assert supervise.record.state == "finished"
    assert supervise.record.progress.step == 60


def test_a_job_that_died_unattended_is_brought_back(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 2)
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(supervise.job(), signal.SIGABRT)
    wait_for(lambda: not supervise.processes(), 60, "the end of the job")
    second = supervise(job=JOB).check(0)
    assert "has ended while nobody looked after it" in second.said
    assert "SIGABRT" in second.said
    assert supervise.log() == log_of(60)


def test_only_one_ckptctl_looks_after_a_run(supervise: Supervised) -> None:
    first = supervise(job=JOB, until=5)
    supervise.wait_step(5)
    second = supervise(job=JOB, until=5)
    assert second.wait() == 11
    assert str(first.process.pid) in second.said
    assert first.process.poll() is None
    waiting = supervise("--lock-wait", "60s", job=JOB)
    first.check(0)
    waiting.check(0)
    assert "come to its end already" in waiting.said


def test_a_signal_ends_the_wait_for_another_ckptctl(supervise: Supervised) -> None:
    supervise(job=JOB, until=5)
    supervise.wait_step(5)
    waiting = supervise("--lock-wait", "60s", job=JOB, until=5)
    waiting.wait_handles(signal.SIGTERM)
    waiting.signal(signal.SIGTERM)
    waiting.check(75, timeout_s=30)


def test_processes_that_lost_their_keeper_are_ended_before_the_job_comes_back(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    keeper, job = supervise.keeper(), supervise.job()
    first.signal(signal.SIGKILL)
    first.wait()
    os.kill(keeper, signal.SIGKILL)
    assert state(job) != "X"
    second = supervise(job=JOB).check(0)
    assert "had lost their keeper are ended" in second.said
    assert supervise.log() == log_of(60)


def test_a_keeper_that_is_killed_takes_the_job_with_it(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    os.kill(supervise.keeper(), signal.SIGKILL)
    first.check(137)
    supervise.require_nothing_left()
    supervise(job=JOB).check(0)
    assert supervise.log() == log_of(60)


def test_restarts_bring_a_job_back_at_once(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", "--restarts", "2", job=JOB)
    for number in (1, 2):
        supervise.save_at(first, (20 * number - 10, 20 * number))
        os.kill(supervise.job(), signal.SIGKILL)
        wait_for(lambda: first.said.count("goes on from") == number, 30, first.said)  # noqa: B023
    supervise.allow(None)
    first.check(0)
    assert first.said.count("The job is brought back") == 2
    assert supervise.log() == log_of(60)
    assert first.shown[-1] == log_of(60)[-1]


def test_ids_that_are_in_use_mean_a_namespace_of_its_own(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=JOB)
    supervise.save_each(first, 1)
    keeper = supervise.keeper()
    supervise.kill_all()
    wait_for(lambda: state(keeper) == "X", 10, "the end of the keeper")
    intruder = occupy(keeper)
    try:
        second = supervise("--every", "10steps", job=JOB, until=10)
        second.wait_said("gets a PID namespace of its own")
        supervise.save_at(second, (20, 30))
        assert supervise.keeper() != keeper
        # In there too the job is taken over, saved, and brought back.
        second.signal(signal.SIGKILL)
        second.wait()
        third = supervise("--every", "10steps", job=JOB, until=30)
        third.wait_said("taken over")
        supervise.save_at(third, (40,))
        third.signal(signal.SIGTERM)
        third.check(75)
        supervise(job=JOB).check(0)
    finally:
        intruder.kill()
        intruder.wait()
    assert supervise.log() == log_of(60)
    supervise.require_nothing_left()


def occupy(pid: int) -> subprocess.Popen[bytes]:
    """A process with exactly this pid."""
    for _ in range(50):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "100"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    pytest.skip(f"the pid {pid} cannot be had")


@pytest.mark.parametrize("text", ["", "{", '{"version": 1}', '{"version": 9}', "\0" * 100])
def test_a_record_that_is_damaged_holds_up_nothing(text: str, supervise: Supervised) -> None:
    first = supervise("--every", "5steps", job=trains(40, 0.02))
    supervise.save_each(first, 1, every=5)
    supervise.kill_all()
    supervise.run.supervision.write_text(text)
    second = supervise(job=trains(40, 0.02)).check(0)
    assert "is kept as supervision.json.damaged" in second.said
    assert supervise.log() == log_of(40)
    assert supervise.run.supervision.with_name("supervision.json.damaged").read_text() == text


@pytest.mark.parametrize("way", ["closed", "gone", "full"])
def test_nobody_listens(way: str, supervise: Supervised) -> None:
    """Standard output and error lead nowhere: closed, to a reader that is gone, to a disk that is full."""
    words = [str(PROGRAM), "run", "--run", "gpt", "--every", "5steps", "--", *trains(100, 0.02)]
    redirection = {"closed": ">&- 2>&-", "gone": "", "full": ">/dev/full 2>/dev/full"}[way]
    line = f'exec "$@" {redirection}'
    environment = {**supervise.environment}
    pipe = subprocess.PIPE if way == "gone" else None
    process = subprocess.Popen(
        ["sh", "-c", line, "sh", *words], env=environment, stdout=pipe, stderr=pipe, cwd=supervise.folder
    )
    if way == "gone":
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
    assert process.wait(60) == 0
    assert supervise.log() == log_of(100)
    assert len(supervise.snapshots) >= 2
    assert "has come to its end" in (supervise.run.output / "ckptctl.log").read_text()


def test_a_different_command_is_said_not_run(supervise: Supervised) -> None:
    first = supervise("--every", "5steps", job=JOB)
    supervise.save_each(first, 1, every=5)
    supervise.kill_all()
    second = supervise(job=["echo", "something else"]).check(0)
    assert "is that of the command that it was started with: " in second.said
    assert supervise.log() == log_of(60)
    assert supervise.record.command == JOB


def test_all_that_is_said_is_in_the_runs_log_with_the_time(supervise: Supervised) -> None:
    ran = supervise("--every", "10steps", job=trains(25, 0.05)).check(0)
    log = (supervise.run.output / "ckptctl.log").read_text().splitlines()
    said = ran.said.splitlines()
    assert [line.split(" ", 2)[2] for line in log] == said
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} ", line) for line in log)
