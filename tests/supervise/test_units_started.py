"""What a service manager and cron do with a real run, done by hand as the unit says: start, stop, start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from ckptctl.host.service import Service, service_of
from support import CommandLine, lines, wait_for
from support.jobs import kill_marked, marked
from support.trainings import STEPS, command, undisturbed
from support.units import UnitFile, run_cron_line, umask_of_ours

ODD_WORDS = ("$HOME ${Y} $$", "%h %%", 'say "hi"', "it's", "back\\slash \\t", ";", "a\nb\tc\x07", "", " é ", "#x", "--")
MARK = "CKPTCTL_TEST_JOB"


class Installed:
    """The run `gpt` as units in a folder, started as they say."""

    def __init__(self, ckptctl: CommandLine, folder: Path, mark: str, work: Path, words: tuple[str, ...]) -> None:
        install = ("systemd", "install", "--run", "gpt", "--to", str(folder), "--env", f"{MARK}={mark}")
        ckptctl(*install, *words, cwd=work).check()
        self.folder, self.mark = folder, mark
        self.run = ckptctl.store / "runs" / "gpt"

    @property
    def service(self) -> UnitFile:
        return self.unit("run")

    def unit(self, what: str) -> UnitFile:
        return UnitFile(self.folder / f"ckptctl-{what}-gpt.service")

    def lines(self) -> list[str]:
        return lines(self.run / "output" / "stdout.log")

    def said(self) -> str:
        return "\n".join(lines(self.run / "output" / "ckptctl.log"))

    def wait_for_lines(self, count: int) -> None:
        wait_for(lambda: len(self.lines()) >= count, 60, f"{count} lines, {self.said()}")

    def stop(self, main: subprocess.Popen[bytes]) -> int:
        """What the unit says of stopping: a signal for the main process alone, and time. Returns the status."""
        assert self.service.value("KillMode") == "process"
        main.send_signal(signal.Signals[self.service.value("KillSignal")])
        return main.wait(int(self.service.value("TimeoutStopSec")))


class Install(Protocol):
    def __call__(self, *words: str, work: Path | None = None) -> Installed: ...


@pytest.fixture
def mark() -> Iterator[str]:
    """What marks the processes of this test, which are surely gone after it."""
    mark = "c0ffee" + os.urandom(4).hex()
    yield mark
    kill_marked(mark)


@pytest.fixture
def install(ckptctl: CommandLine, tmp_path: Path, mark: str) -> Install:
    """`install("--every", "1m", "--", "python", "train.py")` writes the units of the run `gpt`."""

    def install(*words: str, work: Path | None = None) -> Installed:
        return Installed(ckptctl, tmp_path / "units", mark, work or tmp_path, words)

    return install


@pytest.mark.requires_criu
def test_stopped_and_started_again_it_goes_on_where_it_was(install: Install) -> None:
    gpt = install("--", *command())
    main = gpt.service.start()
    gpt.wait_for_lines(20)
    assert gpt.stop(main) in gpt.service.statuses("SuccessExitStatus")
    assert not marked(gpt.mark)
    assert 20 <= len(gpt.lines()) < STEPS
    assert gpt.service.start().wait(60) == 0
    assert "goes on from" in gpt.said()
    assert gpt.lines() == undisturbed()


@pytest.mark.requires_criu
def test_what_kills_the_main_process_leaves_the_job_to_the_next_start(install: Install) -> None:
    gpt = install("--", *command())
    main = gpt.service.start()
    gpt.wait_for_lines(10)
    main.kill()
    assert main.wait(10) not in gpt.service.statuses("RestartPreventExitStatus")
    step = len(gpt.lines())
    gpt.wait_for_lines(step + 3)
    again = gpt.service.start()
    wait_for(lambda: "taken over" in gpt.said(), 30, "the take-over")
    assert again.wait(60) == 0
    assert gpt.lines() == undisturbed()


def starts_until_over(gpt: Installed) -> list[int]:
    """Start it again as the unit says for each status; the statuses, at most ten."""
    statuses: list[int] = []
    while len(statuses) < 10:
        statuses.append(gpt.service.start().wait(60))
        forced = statuses[-1] in gpt.service.statuses("RestartForceExitStatus")
        prevented = statuses[-1] in {0} | gpt.service.statuses("RestartPreventExitStatus")
        if prevented and not forced:
            break
    return statuses


def test_what_no_start_can_mend_is_not_started_again(install: Install) -> None:
    assert starts_until_over(install("--", "/no/such/program")) == [127]


def test_a_job_that_dies_at_the_same_step_is_given_up(install: Install) -> None:
    gpt = install("--", "sh", "-c", "echo once; exit 1")
    assert starts_until_over(gpt) == [1, 1, 93]
    assert gpt.lines() == ["once"] * 3


def test_words_folder_umask_and_variables_arrive_as_they_were(install: Install, tmp_path: Path) -> None:
    work, secrets = tmp_path / "50% of 'it'", tmp_path / "secrets"
    work.mkdir()
    secrets.write_text("TOKEN=hush\n")
    odd = "a b$c %d \"e\" 'f'\\g"
    seen = "sys.argv[1:], os.getcwd(), os.environ['ODD'], os.environ['TOKEN'], os.umask(0)"
    say = f"import json, os, sys; print(json.dumps([{seen}]))"
    options = ("--env", f"ODD={odd}", "--environment-file", str(secrets))
    gpt = install(*options, "--", sys.executable, "-c", say, *ODD_WORDS, work=work)
    assert gpt.service.start().wait(60) == 0
    assert json.loads(gpt.lines()[0]) == [list(ODD_WORDS), str(work), odd, "hush", umask_of_ours()]
    assert "hush" not in gpt.service.path.read_text()


@pytest.mark.requires_criu
def test_timers_keep_what_the_options_say_and_read_every_byte(ckptctl: CommandLine, install: Install) -> None:
    gpt = install("--every", "300ms", "--keep-last", "2", "--", *command(150))
    for what in ("forget", "verify"):
        assert not condition_holds(gpt.unit(what))
    assert gpt.service.start().wait(60) == 0
    for what in ("forget", "verify"):
        assert condition_holds(gpt.unit(what))
        assert gpt.unit(what).start().wait(60) == 0
    entries = ckptctl.json("list")["result"]
    assert len(entries) == 2
    images = next((gpt.run / entries[-1]["id"] / "images").glob("pages*"))
    content = images.read_bytes()
    images.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert gpt.unit("verify").start().wait(60) == 13


def condition_holds(unit: UnitFile) -> bool:
    """Whether systemd would start it, as systemd itself says."""
    text = f"ConditionPathExists={unit.value('ConditionPathExists')}"
    done = subprocess.run(["systemd-analyze", "condition", text], stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode == 0


@pytest.mark.requires_criu
def test_a_service_stays_down_while_the_machine_is_drained(ckptctl: CommandLine, install: Install) -> None:
    gpt = install("--", *command())
    main = gpt.service.start()
    gpt.wait_for_lines(10)
    assert condition_holds(gpt.service)
    ckptctl("drain").check()
    assert main.wait(20) == 75
    assert not condition_holds(gpt.service)
    assert gpt.service.start().wait(20) == 75
    ckptctl("undrain").check()
    assert condition_holds(gpt.service)
    wait_for(lambda: not marked(gpt.mark), 60, "its end")
    assert gpt.lines() == undisturbed()


@pytest.mark.requires_criu
def test_a_service_is_brought_back_by_its_manager(ckptctl: CommandLine, install: Install, tmp_path: Path) -> None:
    gpt = install("--", *command())
    main = gpt.service.start()
    gpt.wait_for_lines(10)
    ckptctl("drain").check()
    assert main.wait(20) == 75
    record = next((ckptctl.state / "to-bring-back").iterdir())
    document = json.loads(record.read_text())
    document["call"]["service"] = {"name": "ckptctl-run-gpt.service", "of_user": True}
    record.write_text(json.dumps(document))

    programs = tmp_path / "programs"
    programs.mkdir()
    asked = programs / "asked"
    words = " ".join(f"'{word}'" for word in document["call"]["program"] + document["call"]["arguments"])
    start = f"{MARK}={gpt.mark} setsid {words} >/dev/null 2>&1 </dev/null &"
    fake = programs / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$*" >>{asked}\ncase "$*" in *" start "*) {start}\nesac\n')
    fake.chmod(0o755)
    back = ckptctl("undrain", environment={"PATH": f"{programs}:{os.environ['PATH']}"}).check()
    assert "systemctl --user start ckptctl-run-gpt.service" in back.stderr
    assert lines(asked) == [
        "--user reset-failed ckptctl-run-gpt.service",
        "--user start --no-block ckptctl-run-gpt.service",
    ]
    wait_for(lambda: not marked(gpt.mark), 60, "its end")
    assert gpt.lines() == undisturbed()


_OWN = {"SYSTEMD_EXEC_PID": "7"}
_USER = "/user.slice/user-1.slice/user@1.service/app.slice"


@pytest.mark.parametrize(
    ("environment", "groups", "expected"),
    [
        (_OWN, "0::/system.slice/a.service\n", Service("a.service", of_user=False)),
        (_OWN, "2:cpu:/b.service\n1:name=systemd:/s.slice/a.service\n", Service("a.service", of_user=False)),
        (_OWN, f"0::{_USER}/a.service\n", Service("a.service", of_user=True)),
        (_OWN, f"0::{_USER}/run-1.scope\n", None),
        (_OWN, "0::/\n", None),
        ({"SYSTEMD_EXEC_PID": "6"}, "0::/system.slice/cron.service\n", None),
        ({}, "0::/system.slice/cron.service\n", None),
    ],
)
def test_only_the_main_process_of_a_service_is_one(
    environment: dict[str, str], groups: str, expected: Service | None
) -> None:
    assert service_of(7, environment, groups) == expected


@pytest.mark.requires_criu
def test_cron_starts_a_run_and_brings_it_back(ckptctl: CommandLine, tmp_path: Path, mark: str) -> None:
    work = tmp_path / "50% of 'it'"
    work.mkdir()
    every = "*/5 * * * *"
    words = (
        "--run",
        "gpt",
        "--env",
        f"{MARK}={mark}",
        "--keep-last",
        "2",
        "--first-after",
        "300ms",
        "--",
        *command(100),
    )
    table = ckptctl("cron", *words, cwd=work).check().stdout
    night, week = (" ".join(line.split()[:5]) for line in table.splitlines()[-2:])
    for schedule in (night, week):
        assert run_cron_line(table, schedule, tmp_path).stderr == ""
        assert not ckptctl.store.exists()
    ended = run_cron_line(table, every, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (0, "", 0), ended.stderr
    log = ckptctl.store / "runs" / "gpt" / "output" / "stdout.log"
    assert lines(log) == undisturbed(100)
    for schedule in (every, night, week):
        ended = run_cron_line(table, schedule, tmp_path)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert lines(log) == undisturbed(100)
