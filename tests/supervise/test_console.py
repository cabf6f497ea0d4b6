"""What a job appends to its logs is shown live, and whoever watches cannot hold anything up."""

from __future__ import annotations

import os
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptctl.supervise.console import Console, Stream
from support import CommandLine, python, wait_for
from support.kept import KeptJobs

BYTES = b"50%\r 51%\r\x1b[31mred\x1b[0m\xff\xfe\x00 no line end"


class Screen:
    """A pipe to be shown on, and what came through it so far, read by a thread unless that is held."""

    def __init__(self) -> None:
        self._reader, self.descriptor = os.pipe()
        self.shown = b""
        self.reading = threading.Event()
        self.reading.set()
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, expected: bytes) -> None:
        """Wait until this, and no more, was shown."""
        wait_for(lambda: self.shown == expected, 20, f"{expected!r} instead of {self.shown!r}")

    def close(self) -> None:
        self.reading.set()
        os.close(self.descriptor)

    def _read(self) -> None:
        while self.reading.wait() and (piece := os.read(self._reader, 1 << 16)):
            self.shown += piece
        os.close(self._reader)


@pytest.fixture
def screen() -> Iterator[Screen]:
    one = Screen()
    yield one
    one.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as file:
        file.write(data)


def test_bytes_pass_as_they_are(log: Path, screen: Screen) -> None:
    with Console([Stream(log, screen.descriptor)]) as console:
        append(log, BYTES)
        screen.wait(BYTES)
        append(log, b"\n")
        screen.wait(BYTES + b"\n")
    assert console.positions == {log: len(BYTES) + 1}


def test_what_was_there_before_is_not_shown(log: Path, screen: Screen) -> None:
    append(log, b"old\n")
    console = Console([Stream(log, screen.descriptor)])
    append(log, b"between\n")
    with console:
        append(log, b"new\n")
        assert console.flush(10)
        screen.wait(b"between\nnew\n")


def test_it_begins_where_it_is_told(log: Path, screen: Screen) -> None:
    append(log, b"0123456789")
    with Console([Stream(log, screen.descriptor)], {log: 7}):
        screen.wait(b"789")


def test_a_position_beyond_the_end_is_the_end(log: Path, screen: Screen) -> None:
    append(log, b"012")
    with Console([Stream(log, screen.descriptor)], {log: 7}) as console:
        assert console.flush(10)
        append(log, b"345678")
        screen.wait(b"345678")


def test_a_log_that_was_put_back_is_not_shown_again(log: Path, screen: Screen) -> None:
    with Console([Stream(log, screen.descriptor)]) as console:
        append(log, b"1\n2\n3\n4\n")
        screen.wait(b"1\n2\n3\n4\n")
        os.truncate(log, 4)
        assert console.flush(10)
        append(log, b"3\n")
        screen.wait(b"1\n2\n3\n4\n3\n")
        os.truncate(log, 0)
        assert console.flush(10)
        append(log, b"x")
        screen.wait(b"1\n2\n3\n4\n3\nx")


def test_the_last_words_are_shown_at_the_stop(log: Path, screen: Screen) -> None:
    data = os.urandom(3 << 20)
    console = Console([Stream(log, screen.descriptor)]).start()
    append(log, data)
    assert console.stop(60)
    screen.wait(data)
    append(log, b"later")
    time.sleep(0.3)
    assert screen.shown == data


def test_the_stop_does_not_wait_for_one_who_goes_on_writing(log: Path, screen: Screen) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            append(log, b"more\n" * 100)

    writer = threading.Thread(target=write)
    console = Console([Stream(log, screen.descriptor)]).start()
    writer.start()
    try:
        wait_for(lambda: screen.shown, 10, "something")
        assert console.stop(60)
    finally:
        over.set()
        writer.join()


def test_one_who_does_not_look_holds_up_nothing(log: Path, screen: Screen, tmp_path: Path) -> None:
    other, errors = Screen(), tmp_path / "stderr.log"
    data = b"x" * (1 << 20)
    screen.reading.clear()
    console = Console([Stream(log, screen.descriptor), Stream(errors, other.descriptor)]).start()
    append(log, data)
    append(errors, b"error\n")
    other.wait(b"error\n")
    assert not console.flush(0.3)
    screen.reading.set()
    assert console.flush(30)
    screen.wait(data)
    screen.reading.clear()
    append(log, data)
    assert not console.stop(0.3)
    other.close()


def test_one_who_has_gone_is_not_written_to_any_more(log: Path, screen: Screen, tmp_path: Path) -> None:
    errors = tmp_path / "stderr.log"
    reader, gone = os.pipe()
    os.close(reader)
    with Console([Stream(log, gone), Stream(errors, screen.descriptor)]) as console:
        for count in range(3):
            append(log, b"nobody sees this\n")
            append(errors, b"but this\n")
            screen.wait(b"but this\n" * (count + 1))
            assert console.flush(10)
    os.close(gone)


def test_a_stopped_terminal_is_waited_for_by_nobody(log: Path, screen: Screen) -> None:
    shown, terminal = os.openpty()
    console = Console([Stream(log, terminal)]).start()
    append(log, b"before ")
    wait_for(lambda: os.read(shown, 100) == b"before ", 10, "the first words")
    termios.tcflow(terminal, termios.TCOOFF)
    append(log, b"while it is stopped ")
    assert not console.flush(0.3)
    termios.tcflow(terminal, termios.TCOON)
    assert console.flush(10)
    assert os.read(shown, 100) == b"while it is stopped "
    termios.tcflow(terminal, termios.TCOOFF)
    append(log, b"never seen")
    assert not console.stop(0.3)
    for descriptor in (shown, terminal):
        os.close(descriptor)


def test_a_terminal_that_was_hung_up(log: Path) -> None:
    shown, terminal = os.openpty()
    with Console([Stream(log, terminal)]) as console:
        os.close(shown)
        append(log, b"nobody there")
        assert console.flush(10)
    os.close(terminal)


def test_a_log_that_is_a_link_is_not_followed(log: Path, screen: Screen, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret, and long enough")
    log.symlink_to(tmp_path / "secret")
    console = Console([Stream(log, screen.descriptor)], {log: 0}).start()
    console.stop(5)
    assert screen.shown == b""


@pytest.mark.requires_criu
def test_steps_that_are_done_again_are_shown_again(start_kept: KeptJobs, ckptctl: CommandLine, screen: Screen) -> None:
    code = "import itertools, time\nfor step in itertools.count():\n    print(step, flush=True)\n    time.sleep(0.01)"
    console = Console([Stream(start_kept.run.stdout, screen.descriptor)]).start()
    kept = start_kept(*python(code))
    kept.wait_for_lines(10)
    ckptctl("dump", "--pid", str(kept.keeper), "--run", "gpt", "--leave-running").check()
    kept.wait_for_lines(len(kept.lines()) + 50)
    kept.kill()
    assert console.stop()
    before = kept.run.stdout.read_bytes()
    assert screen.shown == before

    (rolled,) = ckptctl.json("restore", "latest")["result"]["rolled_back"]
    size = rolled["size_bytes"]
    console = Console([Stream(kept.run.stdout, screen.descriptor)], {**console.positions, kept.run.stdout: size})
    console.start()
    kept.wait_for_lines(len(before.splitlines()) + 10)
    kept.kill()
    assert console.stop()
    assert screen.shown == before + kept.run.stdout.read_bytes()[size:]
