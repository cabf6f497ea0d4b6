"""Giving images to `criu restore --stream`: files from a folder, memory from a container, checked as it passes.

For each image a thread fills its pipe; for memory others read ahead of it. A block that is damaged never reaches
CRIU: its pipe ends early, CRIU fails, and nothing of the job has run.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.images import blockfile, container, protocol
from ckptctl.images.container import StoredImage
from ckptctl.images.reader import Reader, require_digest

_READERS: Final = 3
# Buffers of one image: what is read ahead of CRIU. A tree of many processes reads many images at once.
_AHEAD: Final = 4
_PIECE_BYTES: Final = 1 << 20
_TICK_MS: Final = 200


class _GivenUp(Exception):
    """The restore is over."""


class Serving:
    """One restore's images: small ones from `images`, memory from the container at `path`.

    Made before criu is started, closed after it has ended. It is what `ckptctl.criu.restore` calls a Server.
    """

    def __init__(self, images: Path, path: Path, digest: str) -> None:
        """Raises ContainerDamaged, files.FileTrouble and files.NoSpace."""
        self._images = images
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._reader = Reader(path)
        self._connection: socket.socket | None = None
        try:
            require_digest(self._reader.index, digest)
            self._address = protocol.Address(images, protocol.SERVE_SOCKET)
        except OSError as error:
            self._reader.close()
            raise files.trouble(error, f"The images cannot be given from {images}") from error
        except BaseException:
            self._reader.close()
            raise
        self._ahead = ThreadPoolExecutor(_READERS, thread_name_prefix="images-ahead")
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

    def close(self) -> None:
        """Nothing of it is left; a criu that still restores fails."""
        self._stopped.set()
        for one in (self._address.socket, self._connection):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._ahead.shutdown(wait=True, cancel_futures=True)
        self._address.close()
        self._reader.close()

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def guarded() -> None:
            try:
                work(*arguments)
            except (_GivenUp, BrokenPipeError, ConnectionError):
                return  # criu has ended, or needs no more of this image
            except BaseException as error:
                with self._lock:
                    self._failure = self._failure or error

        thread = threading.Thread(target=guarded, name="images-serve", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        try:
            connection, _ = self._address.socket.accept()
        except OSError:  # closed
            raise _GivenUp from None
        self._connection = connection
        with connection:
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
            for piece in self._file_pieces(name) if image is None else self._pages(image, pipe):
                self._write(pipe, piece)

    def _file_pieces(self, name: str) -> Iterator[memoryview]:
        with open(self._images / name, "rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                yield memoryview(piece)

    def _pages(self, image: StoredImage, pipe: int) -> Iterator[memoryview]:
        protocol.enlarge(pipe)
        free = deque(blockfile.allocate(container.BLOCK_BYTES, populate=False) for _ in range(min(_AHEAD, len(image))))
        reading: deque[tuple[Future[memoryview], memoryview]] = deque()
        following = iter(range(len(image)))

        def read_ahead() -> None:
            while free and (number := next(following, None)) is not None:
                buffer = free.popleft()
                reading.append((self._ahead.submit(self._reader.read, image, number, buffer), buffer))

        read_ahead()
        try:
            while reading:
                found, buffer = reading.popleft()
                yield found.result()
                free.append(buffer)
                read_ahead()
        finally:
            for found, _ in reading:
                found.cancel()

    def _write(self, pipe: int, piece: memoryview) -> None:
        while piece:
            if self._stopped.is_set():
                raise _GivenUp
            try:
                piece = piece[os.write(pipe, piece) :]
            except BlockingIOError:
                poller = select.poll()
                poller.register(pipe, select.POLLOUT)
                poller.poll(_TICK_MS)
