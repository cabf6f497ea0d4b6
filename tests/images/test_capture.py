"""Taking images from somebody who talks like CRIU: all of it arrives, and every fault ends it at once and cleanly."""

from __future__ import annotations

import os
import select
import socket
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from ckptctl.errors import CkptctlError
from ckptctl.files import FileTrouble, NoSpace
from ckptctl.images.capture import LEAST_BUFFERS, Capture
from ckptctl.images.container import FILE_NAME, GROUP_BYTES
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.protocol import CAPTURE_SOCKET, StreamBroken
from ckptctl.images.reader import Reader
from ckptctl.images.writer import Sealed
from ckptctl.interrupt import Interrupted, Never
from support.image_stream import Talker
from support.tmpfs import fill, tmpfs
from support.waiting import wait_for

MakeCapture = Callable[..., Capture]
Folders = tuple[Path, Path]


def ignore(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def pages_of(folder: Path) -> dict[str, bytes]:
    with Reader(folder / FILE_NAME) as found:
        return {image.name: b"".join(map(bytes, found.pieces(image))) for image in found.index.images}


def assert_nothing_runs(folder: Path) -> None:
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []
    assert not list(folder.glob("*.sock"))


def readable(descriptor: int, timeout_s: float = 0) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])


def test_images_arrive_as_they_were(make_capture: MakeCapture, folders: Folders) -> None:
    """Several at once: small ones become files, memory goes into the container."""
    small = {"inventory.img": b"inventory", "empty.img": b"", "core-12.img": os.urandom(300_000)}
    pages = {f"pages-{number}.img": os.urandom(GROUP_BYTES * number + 4096 * number) for number in range(5)}
    capture = make_capture()
    talker = Talker(capture)
    senders = [threading.Thread(target=talker.send, args=one) for one in {**small}.items()]
    for one in senders:  # the socket is one for all: announced one after the other
        one.start()
        one.join()
    writers = []
    for name, contents in pages.items():
        pipe = talker.announce(name)
        writers.append(threading.Thread(target=write_and_close, args=(pipe, contents)))
        writers[-1].start()
    for one in writers:
        one.join()
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    sealed = capture.finish(Never(), ignore)
    capture.close()
    images = folders[0]
    assert pages_of(images) == pages
    assert {path.name: path.read_bytes() for path in images.iterdir() if path.name != FILE_NAME} == small
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in images.iterdir())
    assert sealed.contents_bytes == sum(map(len, pages.values())) == capture.written_bytes()
    assert_nothing_runs(images)


def write_and_close(pipe: int, contents: bytes) -> None:
    with open(pipe, "wb", buffering=0) as file:
        view = memoryview(contents)
        while view:
            view = view[file.write(view) :]


def test_criu_is_held_until_its_pipes_are_empty(make_capture: MakeCapture, folders: Folders) -> None:
    """Otherwise the job would run on, and change pages that still wait to be read."""
    capture = make_capture()
    talker = Talker(capture)
    pipe = talker.announce("pages-1.img")
    os.write(pipe, b"a" * 4096)
    talker.come_to_the_gate()
    assert not readable(talker.answering, 0.5)
    os.write(pipe, b"b" * 4096)
    os.close(pipe)
    assert readable(talker.answering, 10)
    assert talker.answer() == b"go\n"
    talker.end()
    capture.finish(Never(), ignore)
    assert pages_of(folders[0]) == {"pages-1.img": b"a" * 4096 + b"b" * 4096}


def test_what_was_announced_before_the_gate_is_waited_for(make_capture: MakeCapture, folders: Folders) -> None:
    for _ in range(20):
        capture = make_capture()
        talker = Talker(capture)
        pipes = [talker.announce(f"core-{number}.img") for number in range(30)]
        talker.come_to_the_gate()
        for pipe in pipes[:-1]:
            os.close(pipe)
        assert not readable(talker.answering, 0.01)
        os.close(pipes[-1])
        assert talker.answer() == b"go\n"
        talker.end()
        capture.finish(Never(), ignore)
        capture.close()
        for path in folders[0].iterdir():
            path.unlink()


def test_memory_stays_within_its_bound(make_capture: MakeCapture, tmp_path: Path) -> None:
    """A disk that stands still: CRIU waits, with no more in memory than was said."""
    with tmpfs(tmp_path / "slow", "size=64m") as folder:
        fifo = folder / FILE_NAME
        capture = make_capture(folder, memory_bytes=0)
        assert capture.memory_bytes == LEAST_BUFFERS * GROUP_BYTES
        talker = Talker(capture)
        pipe = talker.announce("pages-1.img")
        os.set_blocking(pipe, False)
        fill(folder)  # nothing can be written: blocks pile up, then the first failure ends it
        piece = os.urandom(1 << 20)
        with pytest.raises(BrokenPipeError):
            while True:
                with suppress(BlockingIOError):
                    os.write(pipe, piece)
        assert capture.written_bytes() <= capture.memory_bytes + (2 << 20)
        assert fifo.exists()
        os.close(pipe)
        capture.close()


def whole_dump(capture: Capture, images: Mapping[str, bytes]) -> Sealed:
    talker = Talker(capture)
    for name, contents in images.items():
        talker.send(name, contents)
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    sealed = capture.finish(Never(), ignore)
    capture.close()
    return sealed


@pytest.mark.parametrize("compression", list(Compression))
def test_memory_does_not_grow_with_the_job(
    compression: Compression, make_capture: MakeCapture, folders: Folders
) -> None:
    """What is not in the pool: blocks that are just being compressed, and what is known of each."""
    capture = make_capture(compression=compression)
    piece = b"".join(b"%07d " % number for number in range(40_000)) + os.urandom(180_000)
    tracemalloc.start()
    try:
        sealed = whole_dump(capture, {"pages-1.img": piece * 128})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sealed.contents_bytes == 128 * len(piece) > 2 * capture.memory_bytes
    assert capture.memory_bytes == LEAST_BUFFERS * GROUP_BYTES
    assert peak - 128 * len(piece) < 8 * GROUP_BYTES
    assert pages_of(folders[0]) == {"pages-1.img": piece * 128}


def test_a_second_dump_refers_to_the_first(make_capture: MakeCapture, folders: Folders, tmp_path: Path) -> None:
    pages = {f"pages-{number}.img": os.urandom(3 * GROUP_BYTES) for number in range(3)}
    first = whole_dump(make_capture(), pages)
    again = tmp_path / "again"
    again.mkdir()
    pages["pages-1.img"] = os.urandom(GROUP_BYTES) + pages["pages-1.img"][GROUP_BYTES:]
    with Known.of(folders[0], again, first.digest) as known:
        second = whole_dump(make_capture(again, known=known), pages)
    assert 7.4 * GROUP_BYTES < second.shared_bytes <= 8 * GROUP_BYTES
    assert {path.name for path in again.iterdir()} == {FILE_NAME, *second.packs}
    assert pages_of(again) == pages


def test_images_that_end_with_a_block(make_capture: MakeCapture, folders: Folders) -> None:
    """More of them than there are buffers: each gives back all that it took."""
    capture = make_capture()
    talker = Talker(capture)
    pages = {f"pages-{number}.img": os.urandom(GROUP_BYTES) for number in range(3 * LEAST_BUFFERS)}
    for name, contents in pages.items():
        talker.send(name, contents)
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    capture.finish(Never(), ignore)
    assert capture.memory_bytes == LEAST_BUFFERS * GROUP_BYTES
    assert pages_of(folders[0]) == pages


def test_more_images_at_once_than_buffers(make_capture: MakeCapture, folders: Folders) -> None:
    """All are begun before any is ended: nobody waits for a buffer that never comes."""
    capture = make_capture()
    talker = Talker(capture)
    names = [f"pages-{number}.img" for number in range(2 * LEAST_BUFFERS)]
    pipes = [talker.announce(name) for name in names]
    for pipe in pipes:
        os.write(pipe, b"a" * 10_000)
    for pipe in pipes[::-1]:
        write_and_close(pipe, b"b" * GROUP_BYTES)
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    capture.finish(Never(), ignore)
    assert capture.memory_bytes <= 2 * LEAST_BUFFERS * GROUP_BYTES
    assert pages_of(folders[0]) == dict.fromkeys(names, b"a" * 10000 + b"b" * GROUP_BYTES)


def test_a_full_disk_ends_it(make_capture: MakeCapture, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=8m") as folder:
        capture = make_capture(folder)
        talker = Talker(capture)
        with pytest.raises(BrokenPipeError):
            talker.send("pages-1.img", os.urandom(64 << 20))
        wait_for(lambda: capture.failure, 10, "the failure")
        assert isinstance(capture.failure, NoSpace)
        with pytest.raises(OSError):
            for number in range(100):
                talker.send(f"core-{number}.img", os.urandom(200_000))
        talker.come_to_the_gate()
        capture.close()
        assert talker.answer() == b"", "criu gives the dump up"
        with pytest.raises(NoSpace):
            capture.finish(Never(), ignore)
        assert_nothing_runs(folder)


def test_a_full_disk_for_a_small_image(make_capture: MakeCapture, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as folder:
        capture = make_capture(folder)
        talker = Talker(capture)
        fill(folder)
        with suppress(BrokenPipeError):
            talker.send("core-1.img", os.urandom(1 << 20))
        wait_for(lambda: capture.failure, 10, "the failure")
        assert isinstance(capture.failure, NoSpace)


def test_an_image_that_comes_twice(make_capture: MakeCapture) -> None:
    capture = make_capture()
    talker = Talker(capture)
    talker.send("core-1.img", b"one")
    with suppress(BrokenPipeError):
        talker.send("core-1.img", b"other")
    wait_for(lambda: capture.failure, 10, "the failure")
    assert isinstance(capture.failure, FileTrouble)


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\x7f",
        b"\x03\x00\x00\x00\x0a\x01/",
        b"\x04\x00\x00\x00\x0a\x02..",
        b"\x05\x00\x00\x00\x0a\x09abc",
        b"\x05\x00\x00\x00\x12\x03abc",
        b"\x05\x00\x00\x00\x0a\x03a\0b",
        b"\x05\x00\x00\x00\x0a\x03abc",  # and then no pipe
    ],
)
def test_what_is_not_understood_ends_it(message: bytes, make_capture: MakeCapture) -> None:
    capture = make_capture()
    talker = Talker(capture)
    talker.connection.sendall(message + b"\0")
    wait_for(lambda: capture.failure, 10, "the failure")
    assert isinstance(capture.failure, StreamBroken)
    with suppress(ConnectionResetError):
        assert talker.connection.recv(1) == b""


@pytest.mark.parametrize("at", ["before it connects", "connected", "within an image", "within a message"])
def test_a_criu_that_is_gone(at: str, make_capture: MakeCapture, folders: Folders) -> None:
    capture = make_capture()
    if at == "before it connects":
        capture.started()
    else:
        talker = Talker(capture)
        if at == "within an image":
            pipe = talker.announce("pages-1.img")
            os.write(pipe, b"x" * 50_000)
            os.close(pipe)
        if at == "within a message":
            talker.connection.sendall(b"\x05\x00\x00\x00\x0a")
        talker.end()
    with pytest.raises(CkptctlError):
        capture.require_complete()
    capture.close()
    assert_nothing_runs(folders[0])


@pytest.mark.parametrize("at", ["before it connects", "connected", "within an image", "at the gate"])
def test_cancelled(at: str, make_capture: MakeCapture, folders: Folders) -> None:
    """CRIU's next write or message fails, or the gate does."""
    capture = make_capture()
    address = str(Path(capture.words[-1]) / CAPTURE_SOCKET)
    if at == "before it connects":
        capture.cancel()
        with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as late:
            late.connect(address)
            late.sendall(b"x")
            raise BrokenPipeError if late.recv(1) == b"" else AssertionError
    else:
        talker = Talker(capture)
        pipe = talker.announce("pages-1.img") if at == "within an image" else -1
        if at == "at the gate":
            pipe = talker.announce("pages-1.img")
            talker.come_to_the_gate()
        capture.cancel()
        capture.cancel()
        if pipe >= 0:
            with pytest.raises(BrokenPipeError):
                while True:
                    os.write(pipe, b"x" * 65536)
        with pytest.raises(OSError):
            while True:
                talker.announce("core-1.img")
        capture.close()
        assert talker.answer() == b""
    capture.close()
    assert_nothing_runs(folders[0])


def test_interrupted_while_it_waits_for_the_disk(make_capture: MakeCapture, folders: Folders) -> None:
    class Asked:
        def check(self) -> None:
            raise Interrupted("now")

    capture = make_capture()
    talker = Talker(capture)
    talker.send("pages-1.img", os.urandom(10 << 20))
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    with pytest.raises(Interrupted):
        capture.finish(Asked(), ignore)  # CRIU has not closed its connection: there is something to wait for
    capture.close()
    assert_nothing_runs(folders[0])


def test_a_path_too_long_for_a_socket(tmp_path: Path, make_capture: MakeCapture) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    capture = make_capture(folder)
    link = Path(capture.words[-1])
    assert len(str(link)) < 80
    talker = Talker(capture)
    talker.send("core-1.img", b"core")
    talker.come_to_the_gate()
    assert talker.answer() == b"go\n"
    talker.end()
    capture.finish(Never(), ignore)
    capture.close()
    assert (folder / "core-1.img").read_bytes() == b"core"
    assert not link.parent.exists()
    assert_nothing_runs(folder)


def test_a_folder_that_cannot_be_written(make_capture: MakeCapture, tmp_path: Path) -> None:
    with pytest.raises(FileTrouble):
        make_capture(tmp_path / "missing")
    assert_nothing_runs(tmp_path)
