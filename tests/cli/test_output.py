"""What people read: lists, trees, verdicts, on a terminal and elsewhere, whatever a job is called."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ckptctl.errors import CkptctlError
from ckptctl.events import Caution, Event, Notice, Progress, StepFinished, StepStarted, StepUndone
from ckptctl.output import reporters, text
from ckptctl.store.manifest import Progress as Reached
from support import CommandLine, Jobs, python
from support.manifests import make_manifest, make_process

GOLDEN = Path(__file__).parent / "golden"
CLEAR = "\r\x1b[K"
HOSTILE = "a\x1b[2Jb\nc\udcff\u202e[red]x"


def with_fixed_age(listing: str) -> str:
    """The list with AGE for every age: the column is as wide as the widest of them."""
    return re.sub(r" +(\d+[dhm]\d\d[hms]|age) ", " AGE ", listing)


def words_of(listing: str) -> list[str]:
    """All words but ages, which go on between two calls."""
    return [word for word in listing.split() if not re.fullmatch(r"\d+[dhm]\d\d[hms]", word)]


def test_the_list(ckptctl: CommandLine, add: Any) -> None:
    assert ckptctl("list").check().stdout == f"No snapshots in {ckptctl.store}.\n"
    add("train", 1, progress=Reached(12000))
    add("train", 2, progress=Reached())
    add("train", 3, progress=Reached(12500))
    (add("a longer name", 4) / "manifest.json").write_text("{")
    ended = ckptctl("list").check()
    listing = with_fixed_age(ended.stdout).replace(str(ckptctl.store), "STORE")
    assert listing == (GOLDEN / "list.txt").read_text()
    assert len(ckptctl("list", "--run", "train").check().stdout.splitlines()) == 4


def test_ids_are_whole_on_a_narrow_terminal(ckptctl: CommandLine, add: Any, on_terminal: Any) -> None:
    name = add("train", 1).name
    assert name in on_terminal("list", columns=20).check().stdout


def test_rows_and_sentences_end_with_a_word_on_a_terminal(ckptctl: CommandLine, add: Any, on_terminal: Any) -> None:
    add("train", 1, tags=("before-the-change", "another", "and-a-third-one"), progress=Reached(12000))
    (add("train", 2) / "manifest.json").write_text("{")
    whole = ckptctl("list").check().stdout
    shown = on_terminal("list", columns=80).check().stdout
    assert [line for line in shown.split("\n") if len(line) > 80] == []
    assert words_of(shown) == words_of(whole)
    verdicts = ("forget", "--keep-last", "5", "--keep-within", "3d", "--keep-epochs", "all", "--dry-run")
    shown = on_terminal(*verdicts, columns=80).check().stdout
    assert [line for line in shown.split("\n") if len(line) > 80] == []
    assert words_of(shown) == words_of(ckptctl(*verdicts).check().stdout)
    refused = on_terminal("rm", "nosuch", columns=60).check(4).stdout
    assert [line for line in refused.split("\n") if len(line) > 60 and " " in line.strip()] == []


def test_what_is_worth_knowing_is_wrapped_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    path = "/scratch/" + "long/" * 12
    event = Caution(f"a file that the job has open cannot be seen: {path} is the one", "W_LATE")
    for screen, expected in ((Screen(), 4), (io.StringIO(), 1)):
        reporters.choose(json=False, quiet=False, verbose=False, stream=screen).report(event)
        lines = screen.getvalue().splitlines()
        assert len(lines) == expected
        assert " ".join(line.strip() for line in lines) == f"warning: {event.text}"
        assert any(path in line for line in lines)


def test_the_tree(ckptctl: CommandLine, add: Any) -> None:
    folder = add("train", 1)
    shown = ckptctl("show", "latest").check().stdout.replace(str(folder), "FOLDER")
    assert shown == (GOLDEN / "show.txt").read_text()


def test_the_tree_fits_the_terminal(add: Any, on_terminal: Any) -> None:
    add("train", 1, note="long " * 30)
    lines = on_terminal("show", "latest", columns=60).check().stdout.splitlines()
    too_long = [line for line in lines if len(line) > 60]
    assert all(len(line.split()) <= 2 for line in too_long), too_long  # but a path stays whole
    assert sum("long long" in line for line in lines) > 1


def test_verdicts(ckptctl: CommandLine, add: Any) -> None:
    assert ckptctl("verify").check().stdout == "No snapshots to verify.\n"
    folder = add("train", 1)
    other = add("train", 2)
    image = folder / "images" / "core-1.img"
    image.write_bytes(b"evil")
    sound = f"{folder.name}: sound (manifest, names and sizes checked)\n"
    assert ckptctl("verify", folder.name).check().stdout == sound
    lines = ckptctl("verify", "--read-data").check(13).stdout.splitlines()
    assert lines[0] == f"{folder.name}: DAMAGED (every byte checked)"
    assert "core-1.img" in lines[1]
    assert lines[-1] == f"{other.name}: sound (every byte checked)"


def test_removal_and_the_last_one(ckptctl: CommandLine, add: Any) -> None:
    name, last = add("train", 1).name, add("train", 2).name
    assert ckptctl("rm", "backup").check().stdout == f"{name} of the run train is deleted for good.\n"
    refused = ckptctl("rm", last).check(10)
    assert "--force" in refused.stderr
    ckptctl("rm", last, "--force").check()
    assert ckptctl.json("list")["result"] == []


@pytest.mark.parametrize(
    ("selector", "minute"),
    [
        ("latest", 6), ("latest~1", 5), ("backup", 5), ("train/latest", 4), ("train/latest~2", 1), ("tag:old", 1),
        ("train/step:12", 4), ("epoch:7", 1), ("20261120T1902", 2), ("20261120T190500Z-0005", 5),
        ("other/20261120T190500Z-0005", 5),
    ],
)  # fmt: skip
def test_selectors(selector: str, minute: int, ckptctl: CommandLine, add: Any) -> None:
    add("train", 1, tags=("old",), progress=Reached(12, 7))
    add("train", 2, progress=Reached())
    add("train", 4, progress=Reached(12))
    add("other", 5, progress=Reached(12))
    add("other", 6, progress=Reached())
    found = ckptctl.json("show", selector)["result"]["manifest"]
    assert found["id"].endswith(f"-{minute:04x}")


def test_a_folder_is_a_snapshot_too(ckptctl: CommandLine, add: Any) -> None:
    folder = add("train", 1)
    assert ckptctl.json("show", folder, "--store", folder.parents[3] / "none")["result"]["folder"] == str(folder)


def test_what_fits_several_runs_is_a_question(ckptctl: CommandLine, add: Any) -> None:
    add("train", 1, tags=("x",))
    add("other", 2, tags=("x",))
    ended = ckptctl("show", "tag:x").check(4)
    assert "other, train" in ended.stderr
    assert "other/tag:x" in ended.stderr
    assert ckptctl.json("show", "tag:x", "--run", "train")["result"]["manifest"]["run"] == "train"
    first = ckptctl("restore", "latest", "--criu-option", "--nonsense").stderr.splitlines()[0]
    assert first.endswith("-0002 of the run other is the newest of 2 runs; another is named with --run.")
    assert "other, train" in ckptctl("list", "--run", "nosuch").check(4).stderr


def test_an_option_without_its_value_is_named(ckptctl: CommandLine, tmp_path: Path) -> None:
    ended = ckptctl("dump", "--pid", "--to", tmp_path / "snapshot").check(2)
    assert "--pid has no value" in ended.stderr
    assert "ckptctl dump --help" in ended.stderr


def test_hostile_names_reach_neither_the_terminal_nor_other_lines(ckptctl: CommandLine, add: Any) -> None:
    process = make_process(cmdline=("python", HOSTILE), comm=HOSTILE)
    folder = add("[bold]run", 1, note=HOSTILE, tags=(HOSTILE,))
    assert "[bold]run" in ckptctl("list").check().stdout
    manifest_lines = len(ckptctl("show", "latest").check().stdout.splitlines())
    tree = dataclasses.replace(make_manifest().tree, processes=(process, make_process(4800, 4711)))
    add("[bold]run", 2, note=HOSTILE, tags=(HOSTILE,), tree=tree)
    shown = ckptctl("show", "latest").check().stdout
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "\\x1b[2Jb\\nc" in shown
    assert len(shown.splitlines()) == manifest_lines
    message = text.error(CkptctlError("No file \x1b]0;x\x07.", hint="Look."))
    assert message == "ckptctl: No file \\x1b]0;x\\x07.\n  What to do: Look.\n"
    assert folder.is_dir()


def test_other_encodings_get_what_they_can_show(ckptctl: CommandLine, add: Any) -> None:
    add("größe", 1)
    ended = ckptctl("show", "latest", environment={"PYTHONIOENCODING": "ascii"}).check()
    assert "gr\\xf6\\xdfe" in ended.stdout
    assert ended.stdout.isascii()


def test_ages() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    ages = {0.4: "0s", 59.9: "59s", 61: "1m01s", 3 * 3600 + 61: "3h01m", 52 * 3600: "2d04h", -5: "0s"}
    assert {ago: text.age(now - timedelta(seconds=ago), now) for ago in ages} == ages


class Screen(io.StringIO):
    """A terminal that remembers what was written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


EVENTS: list[Event] = [
    StepStarted("freeze", "Saving the job"),
    Progress("memory", 1 << 20, 3 << 20),
    Caution("it is late", "W_LATE"),
    StepFinished("freeze", 1.25),
    Notice("done\x1b[2J"),
    StepUndone("freeze"),
    StepUndone("look", "no eyes"),
]


def test_a_terminal_shows_the_step_at_hand_on_one_line_and_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    reporter = reporters.choose(json=False, quiet=False, verbose=False, stream=screen)
    for event in EVENTS:
        reporter.report(event)
    assert f"{CLEAR}  Saving the job: memory: 1.00 MiB of 3.00 MiB …" in screen.getvalue()
    assert screen.getvalue().count("Saving the job …") == 2, "at its start, and after the warning"
    reporter.report(StepStarted("look", "Looking"))
    reporter.close()
    shown = screen.getvalue()
    assert shown.endswith(CLEAR)
    kept = [line.rpartition(CLEAR)[2] for line in shown.split("\n")]
    assert kept == [
        "warning: it is late", "done\\x1b[2J", "  could not be taken back: look: no eyes", "",
    ]  # fmt: skip
    reporter.close()
    assert screen.getvalue() == shown


def test_a_sentence_with_no_step_at_hand_leaves_the_line_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    reporters.choose(json=False, quiet=False, verbose=False, stream=screen).report(Notice("done"))
    assert screen.getvalue() == "done\n"


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_cannot_go_back_gets_plain_lines(term: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term) if term else monkeypatch.delenv("TERM", raising=False)
    screen = Screen()
    reporter = reporters.choose(json=False, quiet=False, verbose=True, stream=screen)
    for event in EVENTS:
        reporter.report(event)
    assert screen.getvalue().splitlines() == [
        "warning: it is late", "  Saving the job: 1.2s", "done\\x1b[2J", "  taken back: freeze",
        "  could not be taken back: look: no eyes",
    ]  # fmt: skip


def test_progress_is_not_said_more_often_than_is_of_use() -> None:
    stream = Screen()
    reporter = reporters.choose(json=True, quiet=False, verbose=False, stream=stream)
    for done in range(1000):
        reporter.report(Progress("memory", done, 1000))
    assert 1 <= len(stream.getvalue().splitlines()) < 10


def test_reporters_do_not_raise_when_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        for json in (True, False):
            reporter = reporters.choose(json=json, quiet=False, verbose=True, stream=stream)
            for event in EVENTS:
                reporter.report(event)
            reporter.close()


@pytest.mark.requires_criu
def test_a_dump_on_a_terminal_leaves_only_what_is_worth_knowing(on_terminal: Any, start_job: Jobs) -> None:
    job = start_job(python("import time\nwhile True: print('.', flush=True); time.sleep(0.01)"))
    job.wait_for_lines(1)
    shown = on_terminal("dump", "--pid", str(job.pid), columns=300).check().stdout
    assert f"{CLEAR}  Looking at the job …" in shown
    left = [line.rpartition(CLEAR)[2] for line in shown.split("\n")]
    assert left[0] == f"The job (pid {job.pid}) was saved and has ended."
    assert len(left) == 4
    assert shown.count("Looking at the job …") == 1
    back = on_terminal("restore", "latest").check().stdout
    left = [line.rpartition(CLEAR)[2] for line in back.split("\n")]
    assert left[0] == f"The job runs again as pid {job.pid}."
    assert re.search(r"put back to \d+ B|restored in", left[1])
