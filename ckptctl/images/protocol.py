"""What CRIU and a program that takes or gives its images say to each other (CRIU's criu/img-streamer.c).

CRIU connects to a unix socket in its folder of images. For each image it sends a message with the name; for a restore
it is answered whether there is one. Then comes one byte that carries an end of the pipe for the contents. A message is
its length in four bytes, then protobuf with a single field.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

from ckptctl.errors import CkptctlError, ExitStatus

CAPTURE_SOCKET: Final = "streamer-capture.sock"
SERVE_SOCKET: Final = "streamer-serve.sock"
IMAGES_OPTION: Final = "-D"

_NAME_TAG: Final = 0x0A  # field 1, of bytes
_REPLY_YES: Final = bytes([2, 0, 0, 0, 0x08, 1])  # field 1, a number
_REPLY_NO: Final = bytes([2, 0, 0, 0, 0x08, 0])
_LONGEST_MESSAGE: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}", re.ASCII)
# sockaddr_un.sun_path with its final zero; criu cuts off what is longer, and then finds no socket.
_LONGEST_PATH: Final = 107
# The largest that every user may ask for; a larger one gains nothing.
_PIPE_BYTES: Final = 1 << 20


class StreamBroken(CkptctlError):
    """The stream of images between CRIU and ckptctl broke off."""

    code = "E_IMAGE_STREAM"
    exit_status = ExitStatus.DUMP_FAILED


def broken(what: str) -> StreamBroken:
    """The error for a stream that cannot go on."""
    return StreamBroken(
        f"The stream of CRIU's images broke off: {what}.",
        hint="Try again with --images directory; then CRIU writes its files itself.",
    )


class Address:
    """A socket in a folder of images, and how CRIU is told of it.

    A path that is too long for a socket is led to by a link in a private folder of its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Raises OSError."""
        self._short: Path | None = None
        self._path = folder / name
        self._words = (IMAGES_OPTION, str(folder))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(self._bound(folder, name))
            self.socket.listen(1)
        except BaseException:
            self.close()
            raise

    @property
    def words(self) -> tuple[str, ...]:
        """The options for criu; to be given after all others, since they may name its folder of images anew."""
        return ("--stream", *self._words)

    def accept(self) -> socket.socket:
        """CRIU's connection. Raises OSError where it is closed."""
        connection, _ = self.socket.accept()
        # CRIU has opened its folder by now: a link that is gone is not left behind by a ckptctl that is killed.
        self._remove_link()
        return connection

    def close(self) -> None:
        """Nothing is left of it."""
        self.socket.close()
        self._path.unlink(missing_ok=True)
        self._remove_link()

    def _remove_link(self) -> None:
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)

    def _bound(self, folder: Path, name: str) -> str:
        if len(os.fsencode(self._path)) <= _LONGEST_PATH:
            return str(self._path)
        self._short = Path(tempfile.mkdtemp(prefix="ckptctl-"))
        link = self._short / "i"
        link.symlink_to(folder)
        self._words = (IMAGES_OPTION, str(link))
        return str(link / name)


def receive_name(connection: socket.socket) -> str | None:
    """The name of the next image, None where CRIU has closed the connection. Raises StreamBroken, OSError."""
    head = _receive(connection, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "little")
    message = _receive(connection, size) if size <= _LONGEST_MESSAGE else None
    if message is None or len(message) < 2 or message[0] != _NAME_TAG:
        raise broken("a message is not understood")
    length, start = message[1], 2
    if length & 0x80 and size > 2:  # a varint of two bytes: names are shorter than what needs three
        length, start = length & 0x7F | message[2] << 7, 3
    name = message[start:].decode("ascii", "replace")
    if len(message) != start + length or not _NAME.fullmatch(name):
        raise broken(f"{name[:80]!a} is no name of an image")
    return name


def send_reply(connection: socket.socket, *, exists: bool) -> None:
    """Say whether there is such an image. Raises OSError."""
    connection.sendall(_REPLY_YES if exists else _REPLY_NO)


def receive_pipe(connection: socket.socket) -> int:
    """The end of the pipe for the image that was just named; it is the caller's. Raises StreamBroken, OSError."""
    descriptors = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if len(descriptors) != 1:
        raise broken("an image came without its pipe")
    return descriptors[0]


def enlarge(pipe: int) -> None:
    """Let more than the usual 64 KiB be in the pipe at a time, as far as this user may. Raises OSError."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY):
            raise


def _receive(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            if data:
                raise broken("a message was cut off")
            return None
        data += piece
    return data
