"""Containers with known contents, and a program that talks to a capture or a server as CRIU does."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from ckptctl.images.blockfile import allocate
from ckptctl.images.capture import Capture
from ckptctl.images.container import GROUP_BYTES
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.protocol import CAPTURE_SOCKET, SERVE_SOCKET
from ckptctl.images.serve import Serving
from ckptctl.images.writer import Sealed, Writer


def write_container(
    path: Path,
    images: Mapping[str, bytes],
    compression: Compression = Compression.OFF,
    known: Known | None = None,
) -> Sealed:
    """A container with these images."""
    buffer = allocate(GROUP_BYTES)
    writer = Writer(path, compression, known)
    try:
        for name, contents in images.items():
            writer.add_image(name, [contents], buffer)
        return writer.seal()
    finally:
        writer.close()


class Talker:
    """CRIU's side of a dump: it connects, announces images and writes into their pipes."""

    def __init__(self, capture: Capture) -> None:
        folder = Path(capture.words[-1])
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(str(folder / CAPTURE_SOCKET))
        self._asking, self._answering = (os.dup(descriptor) for descriptor in capture.pass_fds)
        capture.started()

    def announce(self, name: str) -> int:
        """The end of a new pipe that the image is to be written into."""
        encoded = name.encode()
        size = struct.pack("B", len(encoded)) if len(encoded) < 128 else bytes([len(encoded) & 0x7F | 0x80, 1])
        message = b"\x0a" + size + encoded
        self.connection.sendall(struct.pack("<I", len(message)) + message)
        reading, writing = os.pipe()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading]))]
        self.connection.sendmsg([b"\0"], rights)
        os.close(reading)
        return writing

    def send(self, name: str, contents: bytes) -> None:
        """A whole image."""
        with open(self.announce(name), "wb", buffering=0) as pipe:
            view = memoryview(contents)
            while view:
                view = view[pipe.write(view) :]

    def come_to_the_gate(self) -> None:
        os.write(self._asking, b"written\n")

    def answer(self) -> bytes:
        """What the gate says: nothing where the capture has failed or is gone."""
        return os.read(self._answering, 16)

    @property
    def answering(self) -> int:
        return self._answering

    def end(self) -> None:
        """As a criu that exits, or is killed."""
        self.connection.close()
        for descriptor in (self._asking, self._answering):
            if descriptor >= 0:
                os.close(descriptor)
        self._asking = self._answering = -1


class Asker:
    """CRIU's side of a restore."""

    def __init__(self, serving: Serving) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(str(Path(serving.words[-1]) / SERVE_SOCKET))

    def open(self, name: str) -> int | None:
        """The end of the pipe that the image comes from; None where there is none."""
        message = b"\x0a" + bytes([len(name)]) + name.encode()
        self.connection.sendall(struct.pack("<I", len(message)) + message)
        answer = self.connection.recv(6, socket.MSG_WAITALL)
        assert answer[:5] == b"\x02\0\0\0\x08"
        if not answer[5]:
            return None
        reading, writing = os.pipe()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
        self.connection.sendmsg([b"\0"], rights)
        os.close(writing)
        return reading

    def read(self, name: str) -> bytes | None:
        """A whole image, as far as it comes."""
        pipe = self.open(name)
        if pipe is None:
            return None
        with open(pipe, "rb") as file:
            return file.read()
