"""Giving images to somebody who asks like CRIU: only what is sound reaches it."""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ckptctl.images.compression import Compression
from ckptctl.images.container import ALIGNMENT, FILE_NAME, GROUP_BYTES, ContainerDamaged
from ckptctl.images.pipes import unread_bytes
from ckptctl.images.protocol import StreamBroken
from ckptctl.images.serve import Serving
from ckptctl.images.writer import Sealed
from support.image_stream import Asker, write_container
from support.waiting import wait_for

MakeContainer = Callable[[Mapping[str, bytes]], tuple[Path, Sealed]]
PAGES = {
    "pages-1.img": os.urandom(7 * GROUP_BYTES + ALIGNMENT),
    "pages-2.img": bytes(3 * GROUP_BYTES) + os.urandom(GROUP_BYTES),
    "pages-3.img": b"",
}


def test_all_of_it_arrives(make_container: MakeContainer, folders: tuple[Path, Path]) -> None:
    """In any order, several at once, some of it more than once."""
    path, sealed = make_container(PAGES)
    images, logs = folders
    (images / "core-1.img").write_bytes(b"core")
    with Serving(images, path, sealed.digest, socket_folder=logs) as serving:
        asker = Asker(serving)
        assert asker.read("core-1.img") == b"core"
        assert asker.read("fs-9.img") is None
        pipes = {name: asker.open(name) for name in ("pages-2.img", "pages-1.img")}
        got: dict[str, bytes] = {}

        def read(name: str, pipe: int) -> None:
            with open(pipe, "rb") as file:
                got[name] = file.read()

        readers = [threading.Thread(target=read, args=one) for one in pipes.items()]
        for one in readers:
            one.start()
        for one in readers:
            one.join()
        assert got == {name: PAGES[name] for name in pipes}
        assert asker.read("pages-3.img") == b""
        assert asker.read("pages-1.img") == PAGES["pages-1.img"]
        asker.connection.close()
        assert serving.failure is None
    assert not list(logs.iterdir())
    assert [one.name for one in threading.enumerate() if one.name.startswith("images")] == []


@pytest.mark.parametrize("compression", [Compression.OFF, Compression.AUTO])
def test_what_waits_in_the_pipe_stays_as_it_is(compression: Compression, folders: tuple[Path, Path]) -> None:
    """Its memory is filled anew only once it has been read: a reader that is slow gets the same, to the end."""
    contents = struct.pack(f"<{2 * GROUP_BYTES}f", *(1 + math.sin(number) for number in range(2 * GROUP_BYTES)))
    path = folders[0] / FILE_NAME
    sealed = write_container(path, {"pages-1.img": contents}, compression)
    with Serving(folders[0], path, sealed.digest, socket_folder=folders[1]) as serving:
        pipe = Asker(serving).open("pages-1.img")
        assert pipe is not None
        with open(pipe, "rb", buffering=0) as file:
            got = b""
            while len(got) < len(contents):
                left = len(contents) - len(got)
                wait_for(lambda left=left: unread_bytes(pipe) >= min(512 << 10, left), 10, "a pipe that is full")
                got += file.read(256 << 10)
        assert got == contents


def test_what_is_in_the_page_cache_is_taken_from_there(
    make_container: MakeContainer, folders: tuple[Path, Path]
) -> None:
    """It is checked all the same, but says nothing of the disk."""
    path, sealed = make_container(PAGES)
    path.read_bytes()
    with Serving(folders[0], path, sealed.digest, socket_folder=folders[1]) as serving:
        asker = Asker(serving)
        assert all(asker.read(name) == contents for name, contents in PAGES.items())
        assert serving.failure is None
        assert not serving.gave_all_memory


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_damaged_block_does_not_reach_criu(
    number: int, make_container: MakeContainer, folders: tuple[Path, Path]
) -> None:
    path, sealed = make_container(PAGES)
    with path.open("r+b") as file:
        file.seek(ALIGNMENT + number * GROUP_BYTES + 17)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    with Serving(folders[0], path, sealed.digest, socket_folder=folders[1]) as serving:
        asker = Asker(serving)
        got = asker.read("pages-1.img")
        assert got is not None
        assert PAGES["pages-1.img"].startswith(got)
        assert (number - 2) * GROUP_BYTES < len(got) <= number * GROUP_BYTES
        # Known before the end of the pipe could be seen.
        assert isinstance(serving.failure, ContainerDamaged)


def test_who_reads_only_the_beginning(make_container: MakeContainer, folders: tuple[Path, Path]) -> None:
    path, sealed = make_container(PAGES)
    with Serving(folders[0], path, sealed.digest, socket_folder=folders[1]) as serving:
        asker = Asker(serving)
        pipe = asker.open("pages-1.img")
        assert pipe is not None
        assert os.read(pipe, 100) == PAGES["pages-1.img"][:100]
        os.close(pipe)
        assert asker.read("pages-2.img") == PAGES["pages-2.img"]
        assert serving.failure is None


def test_it_ends_while_criu_does_not_read(make_container: MakeContainer, folders: tuple[Path, Path]) -> None:
    path, sealed = make_container(PAGES)
    serving = Serving(folders[0], path, sealed.digest, socket_folder=folders[1])
    pipe = Asker(serving).open("pages-1.img")
    serving.close()
    assert pipe is not None
    with open(pipe, "rb") as file:
        assert len(file.read()) < len(PAGES["pages-1.img"])


def test_a_name_that_leads_elsewhere(make_container: MakeContainer, folders: tuple[Path, Path]) -> None:
    path, sealed = make_container(PAGES)
    with Serving(folders[0], path, sealed.digest, socket_folder=folders[1]) as serving:
        asker = Asker(serving)
        asker.connection.sendall(b"\x0e\0\0\0\x0a\x0c../../passwd")
        wait_for(lambda: serving.failure, 10, "the failure")
        assert isinstance(serving.failure, StreamBroken)


def test_another_container_is_refused(make_container: MakeContainer, folders: tuple[Path, Path]) -> None:
    path, _ = make_container(PAGES)
    with pytest.raises(ContainerDamaged):
        Serving(folders[0], path, "0" * 64, socket_folder=folders[1])
    assert not list(folders[1].iterdir())
