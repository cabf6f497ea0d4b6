"""What scripts rely on: exit statuses, one JSON document whatever happens, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ckptctl import __version__
from ckptctl.cli.commands import COMMANDS
from ckptctl.errors import ExitStatus
from ckptctl.interrupt import Never
from ckptctl.output import document
from ckptctl.store.layout import Store
from ckptctl.store.locks import Intent, run_lock
from ckptctl.store.owner import this_owner
from support import CommandLine, Ended, Jobs, python
from support.command_line import PROGRAM

NO_PID = str(int(Path("/proc/sys/kernel/pid_max").read_text()) + 1)
FAILURES = {
    "unknown command": (("frobnicate",), ExitStatus.USAGE, "E_USAGE"),
    "unknown option": (("list", "--frobnicate"), ExitStatus.USAGE, "E_USAGE"),
    "missing option": (("dump",), ExitStatus.USAGE, "E_USAGE"),
    "missing argument": (("restore",), ExitStatus.USAGE, "E_USAGE"),
    "superfluous argument": (("list", "frobnicate"), ExitStatus.USAGE, "E_USAGE"),
    "no number": (("dump", "--pid", "frobnicate"), ExitStatus.USAGE, "E_USAGE"),
    "pid out of range": (("dump", "--pid", "0"), ExitStatus.USAGE, "E_USAGE"),
    "negative step": (("dump", "--pid", NO_PID, "--step", "-1"), ExitStatus.USAGE, "E_USAGE"),
    "negative epoch": (("dump", "--pid", NO_PID, "--epoch=-1"), ExitStatus.USAGE, "E_USAGE"),
    "metric without a value": (("dump", "--pid", NO_PID, "--metric", "loss"), ExitStatus.USAGE, "E_USAGE"),
    "metric without a number": (("dump", "--pid", NO_PID, "--metric", "loss=low"), ExitStatus.USAGE, "E_USAGE"),
    "metric without a name": (("dump", "--pid", NO_PID, "--metric", "=1"), ExitStatus.USAGE, "E_USAGE"),
    "empty tag": (("dump", "--pid", NO_PID, "--tag", " "), ExitStatus.USAGE, "E_USAGE"),
    "tag that cannot be seen": (("dump", "--pid", NO_PID, "--tag", "a\nb"), ExitStatus.USAGE, "E_USAGE"),
    "two targets": (("dump", "--pid", NO_PID, "--to", "x", "--run", "y"), ExitStatus.USAGE, "E_USAGE"),
    "no duration": (("dump", "--pid", NO_PID, "--lock-wait", "soon"), ExitStatus.USAGE, "E_CONFIG"),
    "no duration for the GPU": (("dump", "--pid", NO_PID, "--gpu-timeout", "-1s"), ExitStatus.USAGE, "E_USAGE"),
    "no such way with files": (("restore", "latest", "--files", "burn"), ExitStatus.USAGE, "E_USAGE"),
    "no name of a run": (("list", "--run", "../x"), ExitStatus.USAGE, "E_RUN_NAME"),
    "no such process": (("dump", "--pid", NO_PID), ExitStatus.NO_PROCESS, "E_NO_PROCESS"),
    "no such process to look at": (("check", "--pid", NO_PID), ExitStatus.NO_PROCESS, "E_NO_PROCESS"),
    "own tree": (("dump", "--pid", str(os.getpid())), ExitStatus.USAGE, "E_OWN_TREE"),
    "tree of everything": (("dump", "--pid", "1"), ExitStatus.USAGE, "E_OWN_TREE"),
    "nothing matched": (("show", "tag:frobnicate"), ExitStatus.NOTHING_MATCHED, "E_NOTHING_MATCHED"),
    "nothing to restore": (("restore", "step:1"), ExitStatus.NOTHING_MATCHED, "E_NOTHING_MATCHED"),
    "ambiguous": (("show", "2026"), ExitStatus.NOTHING_MATCHED, "E_AMBIGUOUS"),
    "damaged": (("show", "broken/latest"), ExitStatus.INTEGRITY, "E_MANIFEST"),
    "last snapshot": (("rm", "alone/latest"), ExitStatus.STORE, "E_LAST_SNAPSHOT"),
    "nothing to keep": (("forget",), ExitStatus.USAGE, "E_RETENTION"),
    "unknown metric": (
        ("forget", "--run", "alone", "--keep-best", "1", "--metric", "loss_of_nothing", "--mode", "min"),
        ExitStatus.NOTHING_MATCHED,
        "E_NO_METRIC",
    ),
    "no tag": (("tag", "alone/latest"), ExitStatus.USAGE, "E_USAGE"),
    "nothing to pin": (("pin", "tag:frobnicate"), ExitStatus.NOTHING_MATCHED, "E_NOTHING_MATCHED"),
}


@pytest.fixture
def filled(add: Any) -> None:
    """A store with three runs, one of them damaged."""
    add("train", 1, tags=("first",))
    add("train", 2)
    add("alone", 3)
    (add("broken", 4) / "manifest.json").write_text("{")


def the_document(ended: Ended, command: str) -> Any:
    """The one JSON document of a command, looked at as a script would."""
    found = ended.document
    assert found["schema"] == document.SCHEMA
    assert found["ckptctl"] == __version__
    assert found["command"] == command
    assert found["exit_status"] == ended.status
    assert found["status"] == {0: "done", 3: "partial"}.get(ended.status, "failed")
    assert ended.stdout.isascii()
    for line in ended.stderr.splitlines():
        assert "event" in json.loads(line)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_options_and_exit_statuses(name: str, ckptctl: CommandLine) -> None:
    plain = {"NO_COLOR": "1", "TERM": "dumb"}
    ended = ckptctl(name, "--help", environment=plain).check()
    assert ended.stderr == ""
    assert "\x1b" not in ended.stdout
    assert f"Usage: ckptctl {name}" in ended.stdout
    assert "--json" in ended.stdout
    listed = ended.stdout.partition("Exit status:")[2]
    statuses = [int(number) for number in re.findall(r"\b\d+\b", listed)]
    assert statuses[0] == 0
    assert set(statuses) <= set(ExitStatus)
    assert ckptctl(name, "-h", environment=plain).stdout == ended.stdout


def test_help_lists_every_command_in_a_whole_sentence(ckptctl: CommandLine) -> None:
    text = ckptctl("--help").check().stdout
    listed = dict(re.findall(r"^  (\w+)  +(\S.*)$", text.partition("Commands:")[2], re.MULTILINE))
    assert list(listed) == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed.values()), listed


def test_version(ckptctl: CommandLine) -> None:
    assert ckptctl("--version").check().stdout == f"ckptctl {__version__}\n"


def test_without_arguments_the_help_is_shown_and_nothing_was_done(ckptctl: CommandLine) -> None:
    ended = ckptctl()
    ended.check(ExitStatus.USAGE)
    assert ended.stdout == ""
    assert ended.stderr == ckptctl("--help").stdout


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("case", FAILURES)
def test_failures_say_in_lines_what_to_do(case: str, ckptctl: CommandLine) -> None:
    words, status, _ = FAILURES[case]
    ended = ckptctl(*words).check(status)
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert re.fullmatch(r"ckptctl: \S.*[.)]", lines[0]), ended.stderr
    assert not re.search(r"\.\.$|:\.$|\bNone\b|Traceback", lines[0])
    assert re.fullmatch(r"  What to do: [A-Z`].*", lines[-1]), ended.stderr


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_document(case: str, ckptctl: CommandLine) -> None:
    words, status, code = FAILURES[case]
    ended = ckptctl(*words, "--json").check(status)
    error = the_document(ended, words[0])["error"]
    assert error["code"] == code
    assert error["message"] in ckptctl(*words).stderr
    assert error["hint"]
    assert {"outcome", "details", "notes"} <= error.keys()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("words", "kind"),
    [(("list",), list), (("ps",), list), (("show", "train/latest"), dict), (("verify", "train/latest"), list),
     (("recover",), list), (("rm", "train/backup"), dict), (("pin", "train/latest"), dict),
     (("unpin", "train/latest"), dict), (("tag", "train/latest", "--add", "x"), dict),
     (("forget", "--keep-last", "1"), dict), (("prune",), dict)],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_successes_are_one_document(words: tuple[str, ...], kind: type, ckptctl: CommandLine) -> None:
    ended = ckptctl(*words, "--json").check()
    assert isinstance(the_document(ended, words[0])["result"], kind)


@pytest.mark.usefixtures("filled")
def test_damage_is_a_result_of_verify(ckptctl: CommandLine) -> None:
    ended = ckptctl("verify", "--json").check(ExitStatus.INTEGRITY)
    verdicts = the_document(ended, "verify")["result"]
    assert [bool(verdict["damages"]) for verdict in verdicts] == [False, False, False, True]


@pytest.mark.usefixtures("filled")
def test_a_lock_is_named_with_its_owner(ckptctl: CommandLine) -> None:
    owner = this_owner("ckptctl restore latest", datetime.now(UTC))
    with run_lock(Store(ckptctl.store), "train", Intent.READ, owner, wait_s=0, interrupt=Never()):
        ended = ckptctl("rm", "train/backup", "--json").check(ExitStatus.LOCKED)
        error = the_document(ended, "rm")["error"]
        assert error["code"] == "E_LOCKED"
        assert error["details"]["pid"] == os.getpid()
        waited = ckptctl("rm", "train/backup", "--lock-wait", "200ms").check(ExitStatus.LOCKED)
        assert f"{os.getpid()}" in waited.stderr
    ckptctl("rm", "train/backup").check()


def test_a_bug_keeps_its_traceback_in_the_document() -> None:
    found = json.loads(document.failure("list", ValueError("odd"), ExitStatus.BUG))
    assert found["error"]["code"] == "E_BUG"
    assert found["error"]["message"] == "ValueError: odd"
    assert any("ValueError: odd" in line for line in found["error"]["details"]["traceback"])


@pytest.mark.requires_criu
def test_a_dump_speaks_as_it_is_asked_to(ckptctl: CommandLine, start_job: Jobs) -> None:
    job = start_job(python("import time\nwhile True: print('.', flush=True); time.sleep(0.01)"))
    job.wait_for_lines(1)
    words = ("dump", "--pid", str(job.pid), "--leave-running")
    ended = ckptctl(*words, "--json").check()
    result = the_document(ended, "dump")["result"]
    assert result["outcome"] == {
        "pid": job.pid, "state": "running", "sentence": f"The job (pid {job.pid}) runs on.",
    }  # fmt: skip
    assert {json.loads(line)["event"] for line in ended.stderr.splitlines()} >= {"StepStarted", "StepFinished"}
    quiet = ckptctl(*words, "--quiet").check()
    assert quiet.stderr == ""
    assert quiet.stdout.startswith(f"The job (pid {job.pid}) runs on.\nsnapshot ")
    plain = ckptctl(*words).check()
    assert plain.stderr == ""
    assert re.search(r"^  Saving the job's memory: \d+ms$", ckptctl(*words, "--verbose").check().stderr, re.MULTILINE)


@pytest.mark.requires_criu
def test_a_reader_that_goes_away_does_not_stop_a_dump(ckptctl: CommandLine, start_job: Jobs) -> None:
    job = start_job(python("import time\nwhile True: print('.', flush=True); time.sleep(0.01)"))
    job.wait_for_lines(1)
    for _ in range(2):
        process = ckptctl.start("dump", "--pid", str(job.pid), "--leave-running", "--json")
        assert process.stdout and process.stderr
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 0
    assert len(ckptctl.json("list")["result"]) == 2
    assert job.running()


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("words", ["list", "list --json", "show train/latest", "--help", "--version", "dump --help"])
def test_a_reader_that_goes_away_is_no_failure(words: str, ckptctl: CommandLine) -> None:
    for _ in range(3):
        process = ckptctl.start(*words.split())
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("words", ["list", "list --json", "--version"])
def test_output_that_cannot_be_written_is_a_failure(words: str, ckptctl: CommandLine) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True, env=ckptctl.environment
        )
    assert done.returncode == ExitStatus.BUG
    assert re.fullmatch(r"ckptctl: .* cannot be written.*: No space left on device\.\n", done.stderr)


@pytest.mark.usefixtures("filled")
def test_closed_standard_streams_do_no_harm(ckptctl: CommandLine) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        command = f'exec "$0" verify --read-data train/latest {closed}'
        done = subprocess.run(["bash", "-c", command, PROGRAM], env=ckptctl.environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), closed
