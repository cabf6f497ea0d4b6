"""Giving images to `criu restore --stream`: files from a folder, memory from a container, checked as it passes.

For each image a thread fills its pipe; for memory others read ahead of it. A block that is damaged never reaches
CRIU: its pipe ends early, CRIU fails, and nothing of the job has run.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.images import pipes, protocol
from ckptctl.images.container import StoredImage
from ckptctl.images.reader import Reader, require_digest

_PIECE_BYTES: Final = 1 << 20
_TICK_MS: Final = 200


class _GivenUp(Exception):
    """The restore is over."""


class Serving:
    """One restore's images: small ones from `images`, memory from the container at `path`.

    Made before criu is started, closed after it has ended. It is what `ckptctl.criu.restore` calls a Server.
    """

    def __init__(self, images: Path, path: Path, digest: str, *, socket_folder: Path) -> None:
        """`digest` is that of the container; the folder for the socket is one that may be written to.

        Raises ContainerDamaged, files.FileTrouble and files.NoSpace."""
        self._images = images
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._given: set[str] = set()
        self._reader = Reader(path, cached=True)
        self._connection: socket.socket | None = None
        try:
            require_digest(self._reader.index, digest)
            self._address = protocol.Address(socket_folder, protocol.SERVE_SOCKET)
        except OSError as error:
            self._reader.close()
            raise files.trouble(error, f"The images cannot be given from {images}") from error
        except BaseException:
            self._reader.close()
            raise
        self._start(self._listen)

    @property
    def words(self) -> tuple[str, ...]:
        """Options for criu, after all others."""
        return self._address.words

    @property
    def failure(self) -> CkptctlError | None:
        """What was wrong with the images, where anything was: then nothing of this restore may run."""
        if self._failure is None or isinstance(self._failure, CkptctlError):
            return self._failure
        if isinstance(self._failure, OSError):
            return files.trouble(self._failure, f"The images cannot be given from {self._images}")
        return protocol.broken(f"{type(self._failure).__name__}: {self._failure}")

    @property
    def gave_all_memory(self) -> bool:
        """Whether criu took every image of the container to its end, from the disk: each block there is what it was."""
        return not self._reader.took_from_cache and self._given.issuperset(
            image.name for image in self._reader.index.images
        )

    def close(self) -> None:
        """Nothing of it is left; a criu that still restores fails."""
        self._stopped.set()
        for one in (self._address.socket, self._connection):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._address.close()
        self._reader.close()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"images{work.__name__}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(ConnectionError):  # criu was killed
            try:
                connection = self._address.accept()
            except OSError:  # closed
                return
            with connection:
                self._connection = connection
                try:
                    self._answer(connection)
                except CkptctlError as error:
                    self._failure = self._failure or error

    def _answer(self, connection: socket.socket) -> None:
        while not self._stopped.is_set() and (name := protocol.receive_name(connection)) is not None:
            image = self._reader.index.image(name)
            exists = image is not None or (self._images / name).is_file()
            protocol.send_reply(connection, exists=exists)
            if exists:
                pipe = protocol.receive_pipe(connection)
                os.set_blocking(pipe, False)
                self._start(self._give, name, image, pipe)

    def _give(self, name: str, image: StoredImage | None, pipe: int) -> None:
        with open(pipe, "wb", buffering=0):
            try:
                if image is None:
                    self._give_file(name, pipe)
                else:
                    self._give_memory(image, pipe)
                self._given.add(name)
            except (_GivenUp, BrokenPipeError):
                return  # criu has ended, or needs no more of this image
            except BaseException as error:
                # Known before the pipe ends, which is what criu sees.
                self._failure = self._failure or error

    def _give_file(self, name: str, pipe: int) -> None:
        with open(self._images / name, "rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                self._put(os.write, pipe, memoryview(piece))

    def _give_memory(self, image: StoredImage, pipe: int) -> None:
        protocol.enlarge(pipe)
        for piece in self._reader.pieces(image, lambda: pipes.unread_bytes(pipe)):
            # Only the reader's own memory stays as it is until it is read, and even if it is given up before: it goes
            # back to the kernel then. What was decompressed goes back to Python, which uses it again.
            own = isinstance(piece.obj, mmap.mmap)
            self._put(pipes.lend if own else os.write, pipe, piece)

    def _put(self, put: Callable[[int, memoryview], int], pipe: int, piece: memoryview) -> None:
        while piece:
            if self._stopped.is_set():
                raise _GivenUp
            try:
                piece = piece[put(pipe, piece) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(pipe, select.POLLOUT)
                poller.poll(_TICK_MS)
