"""Reading a container: its index, and its blocks in order or at random, each checked before anybody gets it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from ckptctl import files
from ckptctl.images import blockfile, container
from ckptctl.images.container import Codec, ContainerDamaged, Footer, Index, StoredImage, damaged

_THREADS: Final = 3
# Buffers of one image. A tree of many processes reads many images at once, and each has its own.
_AHEAD: Final = 4


class Reader:
    """An open container. What is read from several threads goes into buffers that they bring."""

    def __init__(self, path: Path) -> None:
        """Read the index. Raises ContainerDamaged, and files.FileTrouble for a file that cannot be read."""
        try:
            self._descriptor = blockfile.open_existing(path)
        except FileNotFoundError as error:
            raise damaged("it is missing") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images-read")
        try:
            self.index = _read_index(path)
            self._check_header()
        except BaseException:
            self.close()
            raise

    def read(self, image: StoredImage, number: int, buffer: memoryview) -> memoryview:
        """The contents of a block, in a buffer of BLOCK_BYTES or one of zeros. Raises ContainerDamaged."""
        block, length = image.block(number), image.length_bytes(number)
        if block.codec is Codec.ZERO:
            return _ZEROS[:length]
        stored = container.aligned(block.stored_bytes)
        try:
            size = blockfile.read_all(self._descriptor, buffer[:stored], block.offset_bytes)
        except OSError as error:
            raise damaged(f"the disk does not give back the block at byte {block.offset_bytes} ({error})") from error
        if size != stored or blake3(buffer[:length]).digest() != block.digest or any(buffer[length:stored]):
            raise damaged(f"the block at byte {block.offset_bytes}, of {image.name}, is altered")
        return buffer[:length]

    def pieces(self, image: StoredImage) -> Iterator[memoryview]:
        """The contents of all blocks in order; each is valid until the next is asked for. Raises ContainerDamaged.

        Threads read _AHEAD blocks ahead; several images may be read at the same time.
        """
        ahead = min(_AHEAD, len(image))
        free = deque(blockfile.allocate(container.BLOCK_BYTES, populate=False) for _ in range(ahead))
        reading: deque[tuple[Future[memoryview], memoryview]] = deque()
        numbers = iter(range(len(image)))

        def read_ahead() -> None:
            while free and (number := next(numbers, None)) is not None:
                buffer = free.popleft()
                reading.append((self._threads.submit(self.read, image, number, buffer), buffer))

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

    def close(self) -> None:
        """Release the file; nobody reads any more."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _check_header(self) -> None:
        piece = blockfile.allocate(container.ALIGNMENT, populate=False)
        try:
            size = blockfile.read_all(self._descriptor, piece, 0)
        except OSError as error:
            raise damaged(f"the disk does not give back its header ({error})") from error
        container.parse_header(bytes(piece[:size]))


def verify(path: Path, digest: str, on_piece: Callable[[int], None]) -> None:
    """Read every byte; `digest` is what the index must have, `on_piece` is called with the bytes of each block.

    Raises ContainerDamaged, FileTrouble, and what `on_piece` raises.
    """
    with Reader(path) as reader:
        require_digest(reader.index, digest)
        for image in reader.index.images:
            for number, _ in enumerate(reader.pieces(image)):
                on_piece(image.block(number).stored_bytes)


def require_digest(index: Index, digest: str) -> None:
    """See that it is the container that was written, and not just one. Raises ContainerDamaged."""
    if index.digest.hex() != digest:
        raise damaged("it is another one than that of the dump")


def _read_index(path: Path) -> Index:
    """Through the page cache: it is small, and lies where it ends."""
    try:
        with open(path, "rb", buffering=0) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            end = _read(file.fileno(), file_bytes - Footer.SIZE_BYTES, Footer.SIZE_BYTES)
            footer = container.parse_footer(end, file_bytes)
            index = _read(file.fileno(), footer.index_offset_bytes, footer.index_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    return container.parse_index(index, footer)


def _read(descriptor: int, offset_bytes: int, size: int) -> bytes:
    data = b""
    while offset_bytes >= 0 and len(data) < size:
        piece = os.pread(descriptor, size - len(data), offset_bytes + len(data))
        if not piece:
            break
        data += piece
    return data


def _unreadable(path: Path, error: OSError) -> files.FileTrouble | ContainerDamaged:
    return files.FileTrouble(
        f"{path} cannot be read: {error.strerror or error}.", hint="Check the permissions and the disk."
    )


_ZEROS = memoryview(bytes(container.BLOCK_BYTES))
