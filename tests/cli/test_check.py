"""ckptctl check: the machine, a job, a snapshot; as people, scripts and monitoring systems read it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import CommandLine, Jobs, wait_for
from support.fake_gpu import Card, FakeGpu, fake_gpu
from support.shapes import Shape, started

FINDING = {"check", "group", "level", "summary", "remedy", "data"}
RESULT = {"scope", "subject", "ready", "errors", "warnings", "mended", "findings", "job"}


@pytest.fixture
def counting(start_job: Jobs) -> Iterator[Shape]:
    with started(start_job, "append_log") as shape:
        shape.wait_steps(3)
        yield shape


def result_of(ckptctl: CommandLine, *words: str) -> Any:
    """The result of `ckptctl check WORDS --json`, whose exit status must be that of its findings."""
    ended = ckptctl("check", *words, "--json")
    result = ended.document["result"]
    ended.check(0 if result["ready"] else 5)
    assert result.keys() == RESULT
    assert all(finding.keys() == FINDING for finding in result["findings"])
    levels = [finding["level"] for finding in result["findings"]]
    assert (levels.count("error"), levels.count("warning")) == (result["errors"], result["warnings"])
    assert result["ready"] == (result["errors"] == 0)
    return result


def finding(result: Any, check: str) -> Any:
    (found,) = (one for one in result["findings"] if one["check"] == check)
    return found


def fake_criu(folder: Path, version: str) -> dict[str, str]:
    """The environment with a program that says that it is this version of criu."""
    program = folder / "criu"
    program.write_text(f"#!/bin/sh\necho 'Version: {version}'\n")
    program.chmod(0o755)
    return {"CKPTCTL_CRIU": str(program)}


# ---- the machine ----


def test_the_machine_is_judged_in_all_its_groups(ckptctl: CommandLine) -> None:
    result = result_of(ckptctl)
    assert (result["scope"], result["subject"]) == ("machine", socket.gethostname())
    assert list(dict.fromkeys(one["group"] for one in result["findings"])) == ["host", "criu", "cuda", "cluster"]
    assert all(one["remedy"] for one in result["findings"] if one["level"] in ("warning", "error"))


def test_a_machine_without_criu_is_told_what_to_do(ckptctl: CommandLine) -> None:
    nowhere = {"CKPTCTL_CRIU": "/nowhere/criu"}
    ended = ckptctl("check", environment=nowhere).check(5)
    assert re.search(r"✗ criu: .*/nowhere/criu", ended.stdout)
    assert "What to do: " in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith(f"{socket.gethostname()} cannot dump and restore: ")


def test_a_criu_that_is_too_old_for_this_kernel_stands_in_the_way(ckptctl: CommandLine, tmp_path: Path) -> None:
    ended = ckptctl("check", "--json", environment=fake_criu(tmp_path, "3.17.1")).check(5)
    assert finding(ended.document["result"], "criu")["level"] == "error"


def test_only_problems_are_shown_where_that_is_asked(ckptctl: CommandLine) -> None:
    nowhere = {"CKPTCTL_CRIU": "/nowhere/criu"}
    everything = ckptctl("check", environment=nowhere).check(5).stdout
    problems = ckptctl("check", "--only-problems", environment=nowhere).check(5).stdout
    assert "  ✓ " in everything and "  ✓ " not in problems
    assert "✗ criu: " in problems


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda one: next(iter(one))
)
def test_where_marks_cannot_be_shown_there_are_words(ckptctl: CommandLine, environment: dict[str, str]) -> None:
    ended = ckptctl("check", environment={**environment, "CKPTCTL_CRIU": "/nowhere/criu"}).check(5)
    assert not set("✓✗") & set(ended.stdout)
    assert re.search(r"^  FAIL criu +", ended.stdout, re.MULTILINE)
    assert re.search(r"^  ok   \S+ +", ended.stdout, re.MULTILINE)


def test_a_monitoring_system_gets_one_line_and_its_status(ckptctl: CommandLine) -> None:
    result = result_of(ckptctl)
    ended = ckptctl("check", "--nagios").check(2 if result["errors"] else 1 if result["warnings"] else 0)
    word = ("OK", "WARNING", "CRITICAL")[ended.status]
    numbers = rf"errors={result['errors']};;0 warnings={result['warnings']};0 checks=\d+ time=[\d.]+s"
    assert re.fullmatch(rf"CKPTCTL {word} - [^|\n]+ \| {numbers}\n", ended.stdout)

    ended = ckptctl("check", "--nagios", environment={"CKPTCTL_CRIU": "/nowhere/criu"}).check(2)
    assert ended.stdout.startswith("CKPTCTL CRITICAL - ")
    ended = ckptctl("check", "--nagios", "--pid", "4000000").check(3)
    assert ended.stdout == "CKPTCTL UNKNOWN - There is no process 4000000.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--pid", "1", "--snapshot", "latest"),
        ("--json", "--nagios"),
        ("--yes",),
        ("--fix",),
        ("--run", "train"),
        ("--files", "keep"),
        ("--snapshot", "latest", "--files", "burn"),
        ("--pid", "python"),
        ("--pid", "0"),
    ],
    ids=" ".join,
)
def test_what_contradicts_itself_is_refused(ckptctl: CommandLine, words: tuple[str, ...]) -> None:
    ckptctl("check", *words).check(2)


@pytest.mark.parametrize(("word", "option"), [("latest", "--snapshot"), ("4711", "--pid")])
def test_a_bare_word_is_told_its_option(ckptctl: CommandLine, word: str, option: str) -> None:
    assert f"ckptctl check {option} {word}\n" in ckptctl("check", word).check(2).stderr


def test_what_is_amiss_is_said_in_words_in_its_row(ckptctl: CommandLine) -> None:
    ended = ckptctl("check", environment={"CKPTCTL_CRIU": "/nowhere/criu"}).check(5)
    assert re.search(r"^  ✗ criu +/nowhere/criu \(from \$CKPTCTL_CRIU\) does not run", ended.stdout, re.MULTILINE)


def test_nothing_is_mended_where_nothing_can_be(ckptctl: CommandLine) -> None:
    """The installer is asked, which leaves a criu alone that the user named."""
    ended = ckptctl("check", "--fix", "--yes", "--json", environment={"CKPTCTL_CRIU": "/nowhere/criu"}).check(15)
    assert ended.document["error"]["code"] == "E_INSTALL_FAILED"
    assert "unset it or let it name a CRIU that works" in ended.stderr


# ---- a job ----


@pytest.mark.requires_criu
def test_a_job_is_told_what_a_dump_would_do_and_take(counting: Shape, ckptctl: CommandLine) -> None:
    before = result_of(ckptctl, "--pid", str(counting.pid))
    assert (before["scope"], before["ready"], before["warnings"]) == ("job", True, 0)
    job = before["job"]
    assert (job["pid"], job["processes"], job["threads"], job["gpu"]) == (counting.pid, 1, 1, [])
    assert {"flag", "value", "reason"} <= job["options"][0].keys()
    assert job["estimate"]["frozen_s"] is None
    assert "no dump of this machine" in job["estimate"]["basis"]

    report = ckptctl.json("dump", "--pid", str(counting.pid), "--leave-running")["result"]
    assert [option["flag"] for option in report["options"]] == [option["flag"] for option in job["options"]]
    after = result_of(ckptctl, "--pid", str(counting.pid))["job"]["estimate"]
    assert after["frozen_s"] == pytest.approx(report["frozen_s"], rel=0.5)
    assert after["basis"].startswith("one dump of ")
    assert report["image_bytes"] / 3 < after["size_bytes"] < report["image_bytes"] * 3

    words = ckptctl("check", "--pid", str(counting.pid)).check().stdout
    assert "--tcp-established: " in words
    assert f"The job {counting.pid} (" in words.splitlines()[-1]


def test_a_warning_counts_only_where_it_should(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "pipe_outside") as shape:
        shape.wait_steps(3)
        nothing_else = {finding["check"] for finding in result_of(ckptctl, "--pid", str(shape.pid))["findings"]
                        if finding["level"] == "error"} - {"criu"}  # fmt: skip
        assert nothing_else == set()
        ended = ckptctl("check", "--pid", str(shape.pid), "--strict").check(5)
        assert "! pipe-outside: " in ended.stdout
        assert "What to do: " in ended.stdout


def test_a_blocker_is_named_with_its_remedy_in_words(start_job: Jobs, ckptctl: CommandLine) -> None:
    with started(start_job, "perf_event") as shape:
        shape.wait_steps(3)
        ended = ckptctl("check", "--pid", str(shape.pid)).check(5)
        assert re.search(rf"✗ perf-event: Process {shape.pid} \(", ended.stdout)
        assert "What to do: Stop the profiler" in ended.stdout
        assert f"The job {shape.pid} (" in ended.stdout.splitlines()[-1]
        assert "cannot be dumped" in ended.stdout.splitlines()[-1]


def test_a_job_without_a_process_or_around_ckptctl(ckptctl: CommandLine) -> None:
    assert "There is no process 4000000" in ckptctl("check", "--pid", "4000000").check(6).stderr
    ended = ckptctl("check", "--pid", str(os.getpid()), "--json").check(5)
    assert finding(ended.document["result"], "own-tree")["level"] == "error"


def test_a_job_without_room_for_its_snapshot(counting: Shape, ckptctl: CommandLine) -> None:
    ended = ckptctl("check", "--pid", str(counting.pid), "--store", "/sys/kernel/store", "--json").check(5)
    assert finding(ended.document["result"], "space")["level"] == "error"


@pytest.mark.requires_fake_gpu
@pytest.mark.parametrize("fault", ["version hang", "thread hang", "state hang", "nvml hang"])
def test_a_driver_that_hangs_is_not_waited_for(
    fault: str, start_job: Jobs, ckptctl: CommandLine, tmp_path: Path
) -> None:
    """It is asked only: nothing is locked, and the job goes on while check waits and afterwards."""
    with fake_gpu(tmp_path / "gpu", 580, Card()) as machine:
        job = start_job(machine.training(100_000), environment=machine.environment)
        job.wait_for_lines(3)
        machine.set_faults(fault)
        result = ckptctl("check", "--pid", str(job.pid), "--json", environment=machine.environment).document["result"]
        if fault == "nvml hang":
            assert "not show how much device memory" in finding(result, "host-memory")["summary"]
        else:
            assert "within 5 s" in finding(result, "gpu-interface")["summary"]
            assert finding(result, "gpu-interface")["remedy"]
            assert [one["check"] for one in result["findings"] if one["level"] == "error"] == ["gpu-interface"]
        job.wait_for_lines(len(job.lines()) + 3)

        machine.set_faults()
        after = ckptctl("check", "--pid", str(job.pid), "--json", environment=machine.environment).document["result"]
        assert after["ready"]
        assert [user["pid"] for user in after["job"]["gpu"]] == [job.pid]
        wait_for(lambda: not asking(machine), 10, "the end of who asked the driver")


def asking(machine: FakeGpu) -> list[int]:
    """The processes of ckptctl that talk to the driver of this machine."""
    wanted = str(machine.folder).encode()
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"ckptctl." in read(entry / "cmdline") and wanted in read(entry / "environ")
    ]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# ---- a snapshot ----


@pytest.mark.requires_criu
def test_a_snapshot_is_judged_as_a_restore_would(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid), "--leave-running").check()
    running = result_of(ckptctl, "--snapshot", "latest")
    assert [one["check"] for one in running["findings"] if one["level"] == "error"] == ["pids", "file-in-use"]
    assert str(counting.pid) in finding(running, "pids")["summary"]
    ckptctl("restore", "latest").check(15)
    apart = result_of(ckptctl, "--snapshot", "latest", "--new-pid-namespace")
    assert "pids" not in {one["check"] for one in apart["findings"]}

    counting.job.kill()
    counting.job.wait_gone()
    before = everything_below(ckptctl.store)
    ended = result_of(ckptctl, "--snapshot", "latest")
    assert (ended["scope"], ended["ready"]) == ("snapshot", True)
    assert everything_below(ckptctl.store) == before

    counting.log.rename(counting.log.with_suffix(".away"))
    assert finding(result_of(ckptctl, "--snapshot", "latest"), "file-missing")["level"] == "error"
    ckptctl("restore", "latest").check(5)
    counting.log.with_suffix(".away").rename(counting.log)
    ckptctl("restore", "latest").check()
    counting.wait_steps(counting.steps() + 3)


@pytest.mark.requires_criu
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give up capabilities")
@pytest.mark.parametrize(("given_up", "check"), [("net_admin", "restore-privileges"), ("sys_nice", "job-capabilities")])
def test_rights_that_a_restore_lacks_are_told_as_restore_does(
    counting: Shape, ckptctl: CommandLine, given_up: str, check: str
) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    at_the_dump = counting.steps()
    weakly = ("setpriv", f"--bounding-set=-{given_up}")
    asked = ckptctl("check", "--snapshot", "latest", "--json", prefix=weakly).check(5).document["result"]
    found = [one for one in asked["findings"] if one["level"] == "error"]
    assert check in {one["check"] for one in found}
    assert f"CAP_{given_up.upper()}" in " ".join(one["summary"] for one in found)
    refused = ckptctl("restore", "latest", "--json", prefix=weakly).check(5).document["error"]
    assert sorted(refused["details"]["checks"]) == sorted(one["check"] for one in found)

    # The remedy: the restore with these capabilities.
    assert result_of(ckptctl, "--snapshot", "latest")["ready"]
    ckptctl("restore", "latest").check()
    counting.wait_steps(at_the_dump + 3)


@pytest.mark.requires_criu
@pytest.mark.parametrize(
    ("files", "check", "level", "status"),
    [("roll-back", None, None, 0), ("keep", "file-kept", "warning", 0), ("refuse", "file-grown", "error", 5)],
)
def test_a_snapshot_is_judged_for_the_files_as_they_will_be_treated(
    counting: Shape, ckptctl: CommandLine, files: str, check: str | None, level: str | None, status: int
) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    with counting.log.open("a") as log:
        log.write("more\n")
    result = result_of(ckptctl, "--snapshot", "latest", "--files", files)
    amiss = {one["check"]: one["level"] for one in result["findings"] if one["level"] in ("warning", "error")}
    assert amiss == ({check: level} if check else {})
    ckptctl("restore", "latest", "--files", files).check(status)


@pytest.mark.requires_criu
def test_changed_permissions_are_put_back_as_is_told(counting: Shape, ckptctl: CommandLine) -> None:
    ckptctl("dump", "--pid", str(counting.pid)).check()
    at_the_dump = counting.steps()
    counting.log.chmod(0o600)
    found = finding(result_of(ckptctl, "--snapshot", "latest"), "file-mode")
    assert found["level"] == "error"
    ckptctl("restore", "latest").check(5)
    subprocess.run(shlex.split(found["remedy"].removeprefix("Put them back: ")), check=True)
    assert result_of(ckptctl, "--snapshot", "latest")["ready"]
    ckptctl("restore", "latest").check()
    counting.wait_steps(at_the_dump + 3)


@pytest.mark.requires_criu
def test_a_damaged_snapshot_is_told(counting: Shape, ckptctl: CommandLine) -> None:
    folder = Path(ckptctl.json("dump", "--pid", str(counting.pid))["result"]["folder"])
    image = max((folder / "images").glob("pages*"))
    image.write_bytes(image.read_bytes()[:-1])
    result = result_of(ckptctl, "--snapshot", "latest")
    assert finding(result, "damage")["level"] == "error"
    assert image.name in finding(result, "damage")["summary"]
    ckptctl("restore", str(folder)).check(13)


def test_a_snapshot_that_is_not_there(ckptctl: CommandLine) -> None:
    ckptctl("check", "--snapshot", "latest").check(4)


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    return {
        str(path): (info.st_size, info.st_mtime_ns) for path in sorted(folder.rglob("*")) for info in (path.lstat(),)
    }
