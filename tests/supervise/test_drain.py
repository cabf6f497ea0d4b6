"""A machine is drained and brought back: real runs, saved and restored by CRIU."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from support import CommandLine, Jobs, lines, wait_for
from support.jobs import MARK, kill_marked, marked
from support.trainings import STEPS, Training, command, held, undisturbed

pytestmark = pytest.mark.requires_criu


class Start(Protocol):
    def __call__(self, run: str, *options: str, words: tuple[str, ...] | None = None) -> Training: ...


@pytest.fixture
def start(ckptctl: CommandLine) -> Iterator[Start]:
    """`start("a", "--every", "1m")` starts a training of that name; nothing of it is left after the test."""
    started: list[Training] = []

    def start(run: str, *options: str, words: tuple[str, ...] | None = None) -> Training:
        started.append(Training(ckptctl, run, *options, words=words))
        return started[-1]

    yield start
    for one in started:
        one.close()


def results(document: Any) -> dict[str, str]:
    return {one["run"]: one["result"] for one in document["result"]["runs"]}


def refused(ckptctl: CommandLine) -> bool:
    ended = ckptctl("run", "--run", "late", "--", "true")
    if ended.status == 0:
        return False
    assert ended.status == 75
    assert "drained since" in ended.stderr
    return True


def supervisor(run: Path) -> int:
    """The ckptctl that looks after the run of this folder now."""
    return int(json.loads((run / "supervision.json").read_text())["supervisor"]["pid"])


def test_two_runs_are_drained_and_brought_back(ckptctl: CommandLine, start: Start) -> None:
    trainings = [start("a"), start("b")]
    for one in trainings:
        one.wait_for_lines(20)
    planned = ckptctl.json("drain", "--dry-run")
    assert results(planned) == {"a": "would stop", "b": "would stop"}
    assert not refused(ckptctl)

    drained = ckptctl("drain", "--reason", "new disks", "--json").check().document
    assert results(drained) == {"a": "saved", "b": "saved"}
    for one in trainings:
        one.wait_gone()
        assert one.process.wait(20) == 75
        assert 20 <= len(one.lines()) < STEPS
    assert refused(ckptctl)
    assert "new disks" in ckptctl("run", "--run", "late", "--", "true").stderr
    assert results(ckptctl.json("undrain", "--dry-run")) == {"a": "would start", "b": "would start"}
    assert refused(ckptctl)

    back = ckptctl("undrain", "--json").check().document
    assert results(back) == {"a": "back", "b": "back"}
    expected = undisturbed()
    for one in trainings:
        one.wait_end()
        assert one.lines() == expected
    assert not refused(ckptctl)
    assert not any((ckptctl.state / "duties").iterdir())
    assert not any((ckptctl.state / "to-bring-back").iterdir())


def test_a_damaged_record_of_one_run_holds_up_no_other(ckptctl: CommandLine, start: Start) -> None:
    trainings = [start("a"), start("b")]
    for one in trainings:
        one.wait_for_lines(5)
    ckptctl("drain").check()
    (trainings[0].folder.path / "supervision.json").write_text("{")
    assert results(ckptctl.json("undrain")) == {"a": "back", "b": "back"}
    for one in trainings:
        one.wait_end()
        assert one.lines() == undisturbed()


def test_draining_and_bringing_back_twice_changes_nothing(ckptctl: CommandLine, start: Start) -> None:
    training = start("a")
    training.wait_for_lines(5)
    ckptctl("drain", "--reason", "first").check()
    assert results(ckptctl.json("drain", "--reason", "second")) == {}
    assert "first" in ckptctl("run", "--run", "late", "--", "true").stderr
    assert results(ckptctl.json("undrain")) == {"a": "back"}
    ckptctl("undrain").check()
    assert results(ckptctl.json("undrain")) == {}
    training.wait_end()
    assert training.lines() == undisturbed()


def test_what_is_drained_anew_before_all_are_back_is_not_forgotten(ckptctl: CommandLine, start: Start) -> None:
    training = start("a")
    training.wait_for_lines(5)
    ckptctl("drain").check()
    (ckptctl.state / "drained.json").unlink()  # as an `undrain` leaves it that is killed at once
    ckptctl("drain").check()
    assert results(ckptctl.json("undrain")) == {"a": "back"}
    training.wait_end()
    assert training.lines() == undisturbed()


def test_a_job_that_nobody_looks_after_is_saved_too(ckptctl: CommandLine, start: Start) -> None:
    training = start("a")
    training.wait_for_lines(10)
    training.process.kill()
    training.process.wait(10)
    assert training.processes()
    drained = ckptctl("drain", "--json").check().document
    assert results(drained) == {"a": "saved"}
    training.wait_gone()
    assert results(ckptctl.json("undrain")) == {"a": "back"}
    training.wait_end()
    assert training.lines() == undisturbed()


def test_a_watched_job_is_saved_and_watched_again(ckptctl: CommandLine, start_job: Jobs) -> None:
    job = start_job(command(), append=True)
    job.wait_for_lines(10)
    watch = ckptctl.start("watch", "--pid", str(job.pid), "--run", "w", environment={MARK: job.mark})
    wait_for(lambda: any((ckptctl.state / "duties").glob("*.json")), 20, "the watch")
    assert results(ckptctl.json("drain")) == {"w": "saved"}
    job.wait_gone()
    assert watch.wait(20) == 0
    back = ckptctl("undrain", "--json").check().document
    assert results(back) == {"w": "back"}
    job.wait_gone()
    assert job.lines() == undisturbed()


def test_a_run_that_does_not_stop_is_named_and_left(ckptctl: CommandLine, start: Start) -> None:
    training = start("stubborn", "--on-signal", "TERM=ignore", words=command(400))
    other = start("a")
    training.wait_for_lines(5)
    other.wait_for_lines(5)
    ended = ckptctl("drain", "--time-limit", "3s", "--json").check(3)
    assert results(ended.document) == {"a": "saved", "stubborn": "runs"}
    assert "--on-signal" in ended.document["result"]["runs"][1]["text"]
    assert training.process.poll() is None
    assert results(ckptctl.json("undrain")) == {"a": "back", "stubborn": "runs already"}
    assert supervisor(training.folder.path) == training.process.pid


def test_a_run_that_comes_to_its_end_before_it_is_brought_back_is_left(ckptctl: CommandLine, start: Start) -> None:
    training = start("stubborn", "--on-signal", "TERM=ignore", words=held(60))
    training.wait_for_lines(5)
    ckptctl("drain", "--time-limit", "0s").check(3)
    training.wait_end()
    assert results(ckptctl.json("undrain")) == {"stubborn": "ended"}
    assert results(ckptctl.json("undrain")) == {}
    assert training.lines() == undisturbed(60)


def test_what_comes_to_its_end_by_itself_is_not_brought_back(ckptctl: CommandLine, start: Start) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('on', flush=True); signal.pause()"
    training = start("a", "--on-signal", "TERM=pass", words=(sys.executable, "-c", code))
    training.wait_for_lines(1)
    assert results(ckptctl.json("drain")) == {"a": "ended"}
    assert results(ckptctl.json("undrain")) == {}


def test_it_comes_back_with_folder_environment_umask_and_logs(ckptctl: CommandLine, tmp_path: Path) -> None:
    work, log, mark = tmp_path / "my work", tmp_path / "ckptctl.log", "c0ffee" + os.urandom(4).hex()
    work.mkdir()
    line = f'umask 0027; exec "$0" run --run a --no-resume -- {" ".join(command())} >"{log}" 2>&1'
    environment = {**ckptctl.environment, MARK: mark, "ODD": "a 'b'\n$c\udcff"}
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"cd '{work}' && {line}", sys_ckptctl()], environment)
    try:
        wait_for(lambda: len(lines(log)) > 10, 30, "the training")
        ckptctl("drain").check()
        os.waitpid(pid, 0)
        before = len(lines(log))
        ckptctl("undrain").check()
        again = supervisor(ckptctl.store / "runs" / "a")
        assert Path(f"/proc/{again}/cwd").resolve() == work
        assert b"ODD=a 'b'\n$c\xff" in Path(f"/proc/{again}/environ").read_bytes().split(b"\0")
        assert b"--no-resume" not in Path(f"/proc/{again}/cmdline").read_bytes()
        record = next((ckptctl.state / "duties").glob("*.json"))
        assert json.loads(record.read_text())["call"]["umask"] == 0o027
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
        wait_for(lambda: not marked(mark), 60, "its end")
        assert len(lines(log)) > before
        assert lines(ckptctl.store / "runs" / "a" / "output" / "stdout.log") == undisturbed()
    finally:
        kill_marked(mark)


def test_what_cannot_be_brought_back_is_tried_again(ckptctl: CommandLine, start: Start) -> None:
    training = start("a")
    training.wait_for_lines(5)
    ckptctl("drain").check()
    ckptctl.store.chmod(0o777)
    failed = ckptctl("undrain", "--json").check(3).document
    assert results(failed) == {"a": "failed"}
    assert "chmod go-w" in failed["result"]["runs"][0]["text"]
    ckptctl.store.chmod(0o700)
    assert results(ckptctl.json("undrain")) == {"a": "back"}
    training.wait_end()
    assert training.lines() == undisturbed()


def test_of_two_for_one_run_both_are_stopped_and_one_comes_back(ckptctl: CommandLine, start: Start) -> None:
    first = start("a")
    first.wait_for_lines(5)
    second = start("a", "--lock-wait", "10m")
    wait_for(lambda: len(list((ckptctl.state / "duties").glob("*.json"))) == 2, 20, "the second")
    drained = ckptctl.json("drain")["result"]["runs"]
    assert [(one["run"], one["result"]) for one in drained] == [("a", "saved")] * 2
    assert (first.process.wait(20), second.process.wait(20)) == (75, 75)
    assert not first.processes()
    assert results(ckptctl.json("undrain")) == {"a": "back"}
    first.wait_end()
    second.wait_gone()
    assert first.lines() == undisturbed()


def test_who_is_refused_for_another_leaves_no_trace(ckptctl: CommandLine, start: Start) -> None:
    training = start("a")
    training.wait_for_lines(5)
    ckptctl("run", "--run", "a", "--", *command()).check(11)
    (record,) = (ckptctl.state / "duties").glob("*.json")
    assert json.loads(record.read_text())["supervisor"]["pid"] == training.process.pid


def test_a_drain_that_is_interrupted_says_what_holds(ckptctl: CommandLine, start: Start) -> None:
    training = start("stubborn", "--on-signal", "TERM=ignore", words=command(400))
    training.wait_for_lines(5)
    drain = ckptctl.start("drain")
    wait_for(lambda: any((ckptctl.state / "to-bring-back").glob("*.json")), 20, "the record")
    drain.send_signal(signal.SIGINT)
    assert "undrain" in drain.communicate(timeout=20)[1]
    assert drain.returncode == 130
    assert refused(ckptctl)
    assert results(ckptctl.json("undrain")) == {"stubborn": "runs already"}
    assert not refused(ckptctl)


def test_cron_starts_only_what_is_needed(ckptctl: CommandLine, start: Start) -> None:
    def from_cron(run: str, *words: str) -> str:
        ended = ckptctl("run", "--if-needed", "--quiet", "--run", run, "--", *words).check()
        return ended.stdout + ended.stderr

    training = start("a")
    training.wait_for_lines(5)
    assert from_cron("a", *command()) == ""
    assert supervisor(training.folder.path) == training.process.pid
    ckptctl("drain").check()
    assert from_cron("a", *command()) == ""
    assert not training.processes()
    (ckptctl.state / "drained.json").unlink()
    training.release()
    assert from_cron("a", *command()) == ""
    assert training.lines() == undisturbed()
    assert from_cron("a", *command()) == ""
    assert training.lines() == undisturbed()
    for status in (1, 1, 93):
        ckptctl("run", "--if-needed", "--run", "bad", "--", "sh", "-c", "echo once; exit 1").check(status)
    assert from_cron("bad", "sh", "-c", "echo once; exit 1") == ""
    assert lines(ckptctl.store / "runs" / "bad" / "output" / "stdout.log") == ["once"] * 3
    # Whoever cannot read how it stands starts it: it says what is wrong, and mends it.
    (ckptctl.store / "runs" / "bad" / "supervision.json").write_text("{")
    ended = ckptctl("run", "--if-needed", "--run", "bad", "--", "sh", "-c", "exit 1").check(1)
    assert "is kept as supervision.json.damaged" in ended.stderr


def sys_ckptctl() -> str:
    return str(Path(sys.executable).with_name("ckptctl"))
