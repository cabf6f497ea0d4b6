"""Notices of files and commands, what `--on-notice` takes, and the watch over all."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ckptctl.errors import UsageError
from ckptctl.supervise.notices.local import CommandNotices, FileNotices
from ckptctl.supervise.notices.notice import Notice, NoticeKind, NoticeUnavailable, most_urgent
from ckptctl.supervise.notices.parse import parse_notice_source
from ckptctl.supervise.notices.watch import NoticeWatch
from support import wait_for
from support.pids import wait_gone
from support.recorder import Recorder

NOON_S = 1795262400.0  # 2026-11-21 12:00:00 UTC


def at_noon() -> float:
    return NOON_S


# ---- which is the most urgent ----


def test_the_most_urgent_ends_the_job_and_does_so_first() -> None:
    advice = Notice("aws", NoticeKind.ADVICE, "may go", NOON_S + 1)
    later = Notice("azure", NoticeKind.MAINTENANCE, "reboot", NOON_S + 600)
    soon = Notice("gcp", NoticeKind.PREEMPTION, "preempted", NOON_S + 30)
    unknown = Notice("file", NoticeKind.PREEMPTION, "now or later")
    assert most_urgent(()) is None
    assert most_urgent((advice,)) is advice
    assert most_urgent((advice, later)) is later
    assert most_urgent((later, soon, advice)) is soon
    assert most_urgent((soon, unknown)) is unknown


# ---- files ----


@pytest.mark.parametrize(
    ("text", "words", "deadline_s"),
    [
        ("", None, None),
        ("\n \n", None, None),
        ("90s\n", None, NOON_S + 90),
        ("120", None, NOON_S + 120),
        ("2m\nmaintenance of rack 7\n", "maintenance of rack 7", NOON_S + 120),
        ("2026-11-21T12:05:00Z", None, NOON_S + 300),
        ("2026-11-21T13:05:00+01:00\nthe rack moves", "the rack moves", NOON_S + 300),
        ("2026-11-21T12:05:00", "2026-11-21T12:05:00", None),
        ("maintenance of rack 7\n90s\n", "maintenance of rack 7", None),
        ("-5s", "-5s", None),
    ],
)
def test_what_a_file_says(text: str, words: str | None, deadline_s: float | None, tmp_path: Path) -> None:
    path = tmp_path / "notice"
    path.write_text(text)
    os.utime(path, (NOON_S, NOON_S))
    notice = FileNotices(path).poll()
    assert notice == Notice("file", NoticeKind.PREEMPTION, words or f"{path} is there", deadline_s)


def test_a_file_is_a_notice_while_it_exists(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "notice"
    source = FileNotices(path)
    assert source.poll() is None
    path.parent.mkdir()
    assert source.poll() is None
    path.touch()
    assert source.poll() is not None
    path.unlink()
    assert source.poll() is None


def test_a_file_of_strange_bytes_is_a_notice_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "notice"
    path.write_bytes(b"\xff\xfe" * 100_000)
    assert FileNotices(path).poll() is not None


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoticeUnavailable, match="cannot be read"):
        FileNotices(tmp_path).poll()


# ---- commands ----


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


@pytest.mark.parametrize(
    ("script", "words", "deadline_s"),
    [
        ("exit 0", "sh gives notice", None),
        ("echo rack 7 goes; echo really", "rack 7 goes", None),
        ("echo 90s; echo rack 7 goes", "rack 7 goes", NOON_S + 90),
        ("yes | head -n 100000", "y", None),
    ],
)
def test_a_command_that_gives_notice(script: str, words: str, deadline_s: float | None) -> None:
    notice = CommandNotices(sh(script), now_s=at_noon).poll()
    assert notice == Notice("command", NoticeKind.PREEMPTION, words, deadline_s)


def test_a_command_that_gives_none() -> None:
    assert CommandNotices(sh("echo nothing; exit 1"), now_s=at_noon).poll() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (sh("exit 2"), "exit status 2"),
        (sh("kill -KILL $$"), "SIGKILL"),
        (("/nonexistent/program",), "not installed"),
        (("/dev/null",), "cannot be run"),
    ],
)
def test_a_command_that_cannot_tell(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(NoticeUnavailable, match=said) as caught:
        CommandNotices(words, now_s=at_noon).poll()
    assert caught.value.hint


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $$ $! >{shlex.quote(str(pids))}; wait"
    with pytest.raises(NoticeUnavailable, match="did not end within"):
        CommandNotices(sh(script), now_s=at_noon, limit_s=2).poll()
    wait_gone(pids)


# ---- what --on-notice takes ----


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("aws", "aws"),
        ("gcp", "gcp"),
        ("gcp:120s", "gcp"),
        ("gcp:2m@http://127.0.0.1:8080", "gcp"),
        ("azure", "azure"),
        ("aws@http://127.0.0.1:1338", "aws"),
        ("azure@http://[::1]:80/simulator", "azure"),
        ("file:/run/preempt now", "file"),
        ("file:a:b@c", "file"),
        ("command:/opt/site/about-to-go --quiet 'rack 7'", "command"),
    ],
)
def test_sources_by_name(text: str, name: str) -> None:
    assert parse_notice_source(text, at_noon).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ec2",
        "AWS",
        "aws:30s",
        "azure:",
        "gcp:soon",
        "gcp:",
        "aws@",
        "aws@127.0.0.1:1338",
        "aws@https://127.0.0.1",
        "aws@http://",
        "aws@http://h:99999",
        "aws@http://user:word@host",
        "aws@http://h/?x=1",
        "aws@http://h /",
        "file:",
        "command:",
        "command:'open",
    ],
)
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_notice_source(text, at_noon)
    assert caught.value.hint


# ---- the watch ----


@dataclass(slots=True)
class Told:
    """A source that says what a test has told it, and may hang."""

    name: str = "told"
    interval_s: float = 0.01
    notice: Notice | None = None
    error: NoticeUnavailable | None = None
    polls: int = 0
    closed: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    def poll(self) -> Notice | None:
        self.polls += 1
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self.notice

    def close(self) -> None:
        self.closed = True

    def polled_again(self) -> None:
        before = self.polls
        wait_for(lambda: self.polls >= before + 2)


@pytest.fixture
def told() -> Iterator[Told]:
    source = Told()
    yield source
    source.go_on.set()


def test_a_watch_over_nothing_has_nothing(recorder: Recorder) -> None:
    watch = NoticeWatch([], recorder)
    watch.start()
    assert watch.latest() is None
    watch.stop()


def test_the_watch_shows_what_stands_and_forgets_what_was_taken_back(told: Told, recorder: Recorder) -> None:
    watch = NoticeWatch([told, Told(name="quiet")], recorder)
    assert watch.latest() is None
    watch.start()
    told.notice = Notice("told", NoticeKind.PREEMPTION, "goes")
    wait_for(lambda: watch.latest() == told.notice)
    told.notice = None
    wait_for(lambda: watch.latest() is None)
    watch.stop()
    assert told.closed
    assert recorder.events == []


def test_a_source_that_hangs_hangs_alone(told: Told, recorder: Recorder) -> None:
    other = Told(name="other", notice=Notice("other", NoticeKind.PREEMPTION, "goes"))
    told.go_on.clear()
    watch = NoticeWatch([told, other], recorder)
    watch.start()
    wait_for(lambda: watch.latest() == other.notice)
    began_s = time.monotonic()
    watch.stop()
    assert time.monotonic() - began_s < 10
    assert not told.go_on.is_set()  # it still hangs


def test_a_source_that_is_silent_is_said_once_until_it_speaks_again(told: Told, recorder: Recorder) -> None:
    told.notice = Notice("told", NoticeKind.PREEMPTION, "goes")
    watch = NoticeWatch([told], recorder)
    watch.start()
    wait_for(watch.latest)
    told.error = NoticeUnavailable("It is away.", hint="Look for it.")
    told.polled_again()
    told.polled_again()
    assert watch.latest() == told.notice  # a server that goes away does not take its word back
    (caution,) = recorder.cautions()
    assert "told" in caution and "the run goes on" in caution and caution.endswith("It is away. Look for it.")
    told.error = None
    told.polled_again()
    assert recorder.notices() == ["Preemption notices of told can be read again."]
    told.error = NoticeUnavailable("Away again.", hint="Look for it.")
    told.polled_again()
    watch.stop()
    assert len(recorder.cautions()) == 2


def test_a_stopped_watch_asks_no_more(told: Told, recorder: Recorder) -> None:
    watch = NoticeWatch([told], recorder)
    watch.start()
    told.polled_again()
    watch.stop()
    polls = told.polls
    time.sleep(0.1)
    assert told.polls == polls


def test_stopping_kills_a_command_that_runs(tmp_path: Path, recorder: Recorder) -> None:
    pids = tmp_path / "pids"
    source = CommandNotices(sh(f"echo $$ >{shlex.quote(str(pids))}; exec sleep 1000"), now_s=at_noon)
    watch = NoticeWatch([source], recorder)
    watch.start()
    wait_for(lambda: pids.exists() and pids.read_text().strip())
    watch.stop()
    wait_gone(pids)
    assert recorder.cautions() == []
