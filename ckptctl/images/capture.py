"""Taking the images of `criu dump --stream`: small ones into files of their own, memory into a container.

For each image a thread empties its pipe. Pages go into buffers of a pool, which a few other threads check, digest and
write; when the disk is slower than CRIU all buffers are full, and CRIU waits. However it ends, no thread stays behind.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from ckptctl import files
from ckptctl.errors import CkptctlError
from ckptctl.images import container, protocol
from ckptctl.images.cutting import end_of_part
from ckptctl.images.gate import Gate
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression
from ckptctl.images.pool import Pool, PoolClosed
from ckptctl.images.writer import Sealed, Writer
from ckptctl.interrupt import Interrupt

# Fewer would not keep the disk busy while blocks are digested.
LEAST_BUFFERS: Final = 8
_WRITERS: Final = 4
_PIECE_BYTES: Final = 64 << 10
# How soon a thread that waits for CRIU notices that the work was given up.
_TICK_MS: Final = 200
_PROGRESS_TICK_S: Final = 0.05


class _GivenUp(Exception):
    """The capture was cancelled, or another thread has failed."""


@dataclass(frozen=True, slots=True)
class Buffers:
    """The memory for a capture: `memory_bytes` at most, and no fewer than LEAST_BUFFERS buffers.

    `limit_s`: how long the kernel may take to give that memory; what has not come by then is done without.
    `whole_bytes`: what will come, for a job that runs on as soon as it has. Where the buffers hold all of it, it is
    checked and written from then on, or when there is no room for more.
    """

    memory_bytes: int
    limit_s: float = math.inf
    whole_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Filled:
    """A buffer with a part of an image in it."""

    name: str
    number: int
    buffer: memoryview
    length_bytes: int


class Capture:
    """One dump's images. Made before criu is started; `finish` or `close` ends it, and `close` must come in any case.

    It is what `ckptctl.criu.dump` calls a Streamer.
    """

    def __init__(
        self,
        images: Path,
        logs: Path,
        buffers: Buffers,
        *,
        compression: Compression = Compression.OFF,
        known: Known | None = None,
    ) -> None:
        """Listen in `images`. Raises files.FileTrouble, files.NoSpace and ZstdMissing."""
        self._images = images
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._taken_bytes = 0
        self._pages_bytes = 0
        self._drained = False
        self._filled: SimpleQueue[_Filled | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._connection: socket.socket | None = None
        self._closing: list[Callable[[], None]] = []
        try:
            self._gate = Gate(logs)
            self._closing.append(self._gate.close)
            self._address = protocol.Address(images, protocol.CAPTURE_SOCKET)
            self._closing.append(self._address.close)
            self._writer = Writer(images / container.FILE_NAME, compression, known)
            self._closing.append(self._writer.close)
            self._pool = Pool(buffers.memory_bytes, least=LEAST_BUFFERS, limit_s=buffers.limit_s)
            self._patient = buffers.whole_bytes is not None and buffers.whole_bytes <= self._pool.size_bytes
            self._begin()
        except OSError as error:
            self.close()
            raise files.trouble(error, f"The images cannot be taken in {images}") from error
        except BaseException:
            self.close()
            raise

    # What criu.dump needs.

    @property
    def words(self) -> tuple[str, ...]:
        """Options for criu, after all others."""
        return (*self._gate.words, *self._address.words)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Descriptors that criu must be started with."""
        return self._gate.pass_fds

    def started(self) -> None:
        """criu has been started: only it holds its descriptors from now on."""
        self._gate.criu_has_started()

    def written_bytes(self) -> int:
        """The bytes of memory that have come so far."""
        return self._pages_bytes

    def cancel(self) -> None:
        """Let criu fail, which lets the job run on: nobody reads its images any more, and the gate is shut."""
        self._stopped.set()
        self._pool.close()
        self._gate.refuse()
        for one in (self._address.socket, self._connection):
            if one is not None:
                _shut_down(one)

    # What comes afterwards.

    @property
    def memory_bytes(self) -> int:
        """The memory that is taken for buffers; see Pool."""
        return self._pool.size_bytes

    def require_complete(self) -> None:
        """See that all images of a criu that succeeded have come. Raises what went wrong, StreamBroken, FileTrouble."""
        if self._failure is not None:
            raise self._error(self._failure)
        if not self._drained:
            raise protocol.broken("criu ended before all of its images had come")

    @property
    def failure(self) -> CkptctlError | None:
        """Why the capture has failed, where it was not criu."""
        return None if self._failure is None else self._error(self._failure)

    def finish(self, interrupt: Interrupt, on_progress: Callable[[int, int], None]) -> Sealed:
        """Wait until all is on the disk. Raises as `require_complete`, NoSpace, and what `interrupt` raises."""
        self.require_complete()
        while any(thread.is_alive() for thread in self._threads):
            interrupt.check()
            on_progress(self._taken_bytes, self._pages_bytes)
            for thread in self._threads:
                thread.join(_PROGRESS_TICK_S / len(self._threads))
        self.require_complete()
        try:
            return self._writer.seal()
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Let go of everything; of a capture that is not finished half a container is left."""
        if "_pool" in vars(self) and "_address" in vars(self):
            self.cancel()
        self._stopped.set()
        for _ in range(_WRITERS):
            self._filled.put(None)
        # They end within a tick: whoever waits for CRIU looks whether it was given up.
        for thread in self._threads:
            thread.join()
        while self._closing:
            self._closing.pop()()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    # The threads.

    def _begin(self) -> None:
        for _ in range(_WRITERS):
            self._start(self._write)
        self._start(self._listen)

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except (_GivenUp, PoolClosed):
                self._stopped.set()
            except BaseException as error:
                # Whatever it is: a thread that dies silently would leave criu, and the job, waiting for ever.
                self._fail(error)

        thread = threading.Thread(target=guarded, name=f"images-{work.__name__}", daemon=True)
        thread.start()  # which may fail
        self._threads.append(thread)
        return thread

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self.cancel()

    def _listen(self) -> None:
        """Hand every image that CRIU announces to a thread; at the gate wait for all of them, then let CRIU go on."""
        takers: list[threading.Thread] = []
        with self._accept() as connection:
            self._connection = connection
            self._check_stopped()
            while self._criu_announces(connection):
                name = protocol.receive_name(connection)
                if name is None:  # criu has ended, and its exit status tells why
                    raise _GivenUp
                takers.append(self._start_taking(name, protocol.receive_pipe(connection)))
            for thread in takers:
                thread.join()
            self._check_stopped()
            self._drained = True
            for _ in range(_WRITERS):
                self._filled.put(None)
            self._gate.open()
            self._pool.hurry()
            # To CRIU a connection that is closed before it has ended is a failure.
            if connection.recv(1):
                raise protocol.broken("criu has sent an image after its last")

    def _accept(self) -> socket.socket:
        """CRIU's connection; a criu that came to the gate without one would wait there for ever."""
        poller = select.poll()
        poller.register(self._address.socket, select.POLLIN)
        poller.register(self._gate.asked, select.POLLIN)
        ready = dict(poller.poll())
        if self._address.socket.fileno() in ready:
            try:
                return self._address.accept()
            except OSError:  # cancelled
                raise _GivenUp from None
        if ready[self._gate.asked] & select.POLLIN:
            raise protocol.broken("criu has written its images itself")
        raise _GivenUp  # criu has ended, and its exit status tells why

    def _criu_announces(self, connection: socket.socket) -> bool:
        """Wait for the next image; False where CRIU has come to the gate and nothing it sent before is left."""
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        poller.register(self._gate.asked, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll(_TICK_MS)}
            self._check_stopped()
            if connection.fileno() in ready:
                return True
            if ready:
                return False

    def _start_taking(self, name: str, pipe: int) -> threading.Thread:
        try:
            os.set_blocking(pipe, False)
            return self._start(self._take_pages if container.is_page_image(name) else self._take_file, name, pipe)
        except BaseException:
            os.close(pipe)
            raise

    def _take_file(self, name: str, pipe: int) -> None:
        with open(pipe, "rb", buffering=0) as source:
            path = self._images / name
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(path, flags, files.PRIVATE_FILE), "wb", buffering=0) as target:
                piece = memoryview(bytearray(_PIECE_BYTES))
                while size := self._read(source.fileno(), piece):
                    _write_all(target.fileno(), piece[:size])

    def _take_pages(self, name: str, pipe: int) -> None:
        with open(pipe, "rb", buffering=0):
            protocol.enlarge(pipe)
            number = 0
            left = b""
            while True:
                buffer = self._pool.take()
                buffer[: len(left)] = left
                size = len(left) + self._fill(pipe, buffer[len(left) :])
                full = size == len(buffer)
                end = end_of_part(buffer) if full else size
                left = bytes(buffer[end:size])
                self._pool.hand_over()
                if size or not number:
                    self._filled.put(_Filled(name, number, buffer, end))
                else:
                    self._pool.give(buffer)
                if not full:
                    return
                number += 1

    def _fill(self, pipe: int, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer) and (size := self._read(pipe, buffer[done:])):
            done += size
            with self._lock:
                self._pages_bytes += size
        return done

    def _read(self, pipe: int, piece: memoryview) -> int:
        """What is in the pipe, 0 at its end; waits for CRIU, and looks now and then whether it was given up."""
        while True:
            self._check_stopped()
            try:
                return os.readv(pipe, [piece])
            except BlockingIOError:
                poller = select.poll()
                poller.register(pipe, select.POLLIN)
                poller.poll(_TICK_MS)

    def _write(self) -> None:
        while (filled := self._filled.get()) is not None:
            if self._patient:
                self._pool.wait_until_scarce()
            if self._stopped.is_set():
                return
            self._writer.add(filled.name, filled.number, filled.buffer, filled.length_bytes)
            with self._lock:
                self._taken_bytes += filled.length_bytes
            self._pool.give(filled.buffer)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise _GivenUp

    def _error(self, error: BaseException) -> CkptctlError:
        if isinstance(error, CkptctlError):
            return error
        if isinstance(error, OSError):
            return files.trouble(error, f"The images cannot be written to {self._images}")
        return protocol.broken(f"{type(error).__name__}: {error}")


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _shut_down(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected any more, or closed
        return
