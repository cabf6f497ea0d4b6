"""A capture that meets faults at each point of the stream: one failure, no thread left, and CRIU is not let go on."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ckptctl.errors import CkptctlError
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.images.capture import Capture
from ckptctl.images.protocol import StreamBroken
from support.image_stream import Talker
from support.tmpfs import fill, tmpfs
from support.waiting import wait_for

MakeCapture = Callable[..., Capture]
MIB = 1 << 20
SENT_BYTES = 24 * MIB


@contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    """This process may not have more of it."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def failure_of(capture: Capture, talker: Talker) -> CkptctlError:
    """What the capture says after a job of SENT_BYTES was sent to it, which fails; nothing of it is left."""
    with suppress(OSError):
        talker.send("core-1.img", b"core")
        talker.send("pages-1.img", os.urandom(SENT_BYTES))
        talker.send("pages-2.img", os.urandom(SENT_BYTES))
    found = wait_for(lambda: capture.failure, 20, "the failure")
    talker.come_to_the_gate()
    capture.close()
    assert talker.answer() == b"", "criu gives the dump up"
    with pytest.raises(type(found)):
        capture.require_complete()
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []
    return found


@pytest.mark.parametrize("room_bytes", [0, 4096, 2 * MIB, 5 * MIB + 4096, SENT_BYTES, SENT_BYTES + 3 * MIB])
def test_a_disk_that_is_full_at_some_block(room_bytes: int, make_capture: MakeCapture, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=80m") as folder:
        capture = make_capture(folder)
        fill(folder, room_bytes)
        assert isinstance(failure_of(capture, Talker(capture)), NoSpace)


@pytest.mark.parametrize("most_bytes", [4096, 2 * MIB, 3 * MIB + 512, 7 * MIB + 4096, SENT_BYTES + MIB])
def test_a_file_that_may_not_grow(most_bytes: int, make_capture: MakeCapture) -> None:
    """The last write of it is a short one, and of no whole page."""
    capture = make_capture()
    with limited(resource.RLIMIT_FSIZE, most_bytes):
        assert isinstance(failure_of(capture, Talker(capture)), FileTrouble)


def test_no_more_files_may_be_open(make_capture: MakeCapture) -> None:
    """CRIU's pipes do not come through."""
    capture = make_capture()
    talker = Talker(capture)
    pipe = talker.announce("pages-1.img")
    with limited(resource.RLIMIT_NOFILE, pipe + 1):
        with suppress(OSError):
            os.write(pipe, b"x" * 4096)
            for number in range(50):
                talker.announce(f"core-{number}.img")
    os.close(pipe)
    talker.connection.close()
    wait_for(lambda: capture.failure or not any(t.name == "images-_listen" for t in threading.enumerate()), 20, "end")
    with pytest.raises(CkptctlError):
        capture.require_complete()
    capture.close()
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []


def test_a_thread_that_cannot_be_started(make_capture: MakeCapture) -> None:
    """What is neither the disk's fault nor CRIU's: the dump may be tried once more without a stream."""
    capture = make_capture()
    talker = Talker(capture)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(resource.RLIMIT_AS, used + 4 * MIB), suppress(OSError):
        for number in range(20):
            os.close(talker.announce(f"core-{number}.img"))
        talker.connection.recv(1)
    wait_for(lambda: capture.failure, 20, "the failure")
    assert isinstance(capture.failure, StreamBroken)
    capture.close()
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []


def test_a_disk_that_is_full_when_criu_is_at_the_gate(make_capture: MakeCapture, tmp_path: Path) -> None:
    """All that is left fits into a pipe: CRIU writes nothing any more that could fail."""
    with tmpfs(tmp_path / "small", "size=80m") as folder:
        capture = make_capture(folder)
        talker = Talker(capture)
        pipe = talker.announce("pages-1.img")
        small = talker.announce("core-1.img")
        talker.come_to_the_gate()
        wait_for(lambda: (folder / "core-1.img").exists(), 10, "the file")
        fill(folder)
        os.write(small, b"core")
        wait_for(lambda: capture.failure, 20, "the failure")
        assert isinstance(capture.failure, NoSpace)
        assert talker.answer() == b"", "criu is not left waiting"
        os.close(pipe)
        os.close(small)
