"""Reading a container: its index, and its blocks in order, each checked before anybody gets it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from ckptctl import files
from ckptctl.images import blockfile, compression, container
from ckptctl.images.container import ALIGNMENT, GROUP_BYTES, Block, Codec, Footer, Index, StoredImage, damaged

_THREADS: Final = 3
# Buffers of one image. A tree of many processes reads many images at once, and each has its own.
_AHEAD: Final = 4
# Room for the blocks of GROUP_BYTES of contents, wherever they lie: each may need a page more at either end.
_ROOM_BYTES: Final = 2 * GROUP_BYTES
# Reading a little more is faster than reading twice.
_SMALL_GAP_BYTES: Final = 64 << 10


class Reader:
    """An open container, and the packs that it refers to. Several threads may read at the same time."""

    def __init__(self, path: Path, *, cached: bool = False) -> None:
        """Read the index. `cached`: what lies in the page cache is taken from there, which says nothing of the disk.

        Raises ContainerDamaged, and files.FileTrouble for a file that cannot be read.
        """
        self.took_from_cache = False
        self._descriptors: list[int] = []
        self._buffered: list[int] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images-read")
        try:
            self.index = read_index(path)
            for pack in self.index.packs:
                self._descriptors.append(open_pack(path.with_name(pack.name), pack.id))
                if cached:
                    itself = f"/proc/self/fd/{self._descriptors[-1]}"
                    self._buffered.append(os.open(itself, os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            self.close()
            raise

    def pieces(self, image: StoredImage, unread: Callable[[], int] = lambda: 0) -> Iterator[memoryview]:
        """The contents in order, in pieces of GROUP_BYTES at most; each is valid until the next is asked for.

        Beyond that it stays as it is for as long as it is among the last `unread()` bytes of those that were passed on.
        Threads read ahead, with _AHEAD buffers of _ROOM_BYTES, and more where so much is unread that none is free;
        several images may be read at the same time. Raises ContainerDamaged.
        """
        return self._checked(image.blocks(), unread)

    def check(self, on_piece: Callable[[int], None]) -> None:
        """Read everything once; `on_piece` is called with bytes read, in sum Index.stored_bytes.

        Raises ContainerDamaged, and what `on_piece` raises.
        """
        for start, end in self.index.gaps:
            if any(self._gap(start, end)):
                raise damaged(f"at byte {start} it is altered")
        blocks = self.index.distinct_blocks()
        read = 0

        def counted() -> Iterator[Block]:
            nonlocal read
            for block in blocks:
                read += block.stored_bytes
                yield block

        reported = 0
        for _ in self._checked(counted()):
            on_piece(read - reported)
            reported = read

    def close(self) -> None:
        """Release the files; nobody reads any more."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for descriptors in (self._descriptors, self._buffered):
            while descriptors:
                os.close(descriptors.pop())

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _checked(self, blocks: Iterable[Block], unread: Callable[[], int] = lambda: 0) -> Iterator[memoryview]:
        windows = _windows(blocks)
        # Memory that is not used is not there: most windows need half of it.
        free = deque(blockfile.allocate(_ROOM_BYTES) for _ in range(_AHEAD))
        reading: deque[tuple[Future[list[memoryview]], memoryview]] = deque()
        passed: deque[tuple[int, memoryview]] = deque()  # with where it ended in the contents
        end = 0

        def read_ahead() -> None:
            read = end - unread() if passed else 0
            while passed and passed[0][0] <= read:
                free.append(passed.popleft()[1])
            if not free and not reading:
                free.append(blockfile.allocate(_ROOM_BYTES))
            while free and (window := next(windows, None)) is not None:
                buffer = free.popleft()
                reading.append((self._threads.submit(self._contents, window, buffer), buffer))

        read_ahead()
        try:
            while reading:
                found, buffer = reading.popleft()
                for piece in found.result():
                    end += len(piece)
                    yield piece
                passed.append((end, buffer))
                read_ahead()
        finally:
            for found, _ in reading:
                found.cancel()

    def _contents(self, window: list[Block], buffer: memoryview) -> list[memoryview]:
        """The contents of blocks, in the buffer as far as they are stored there. Raises ContainerDamaged."""
        places = self._fetch(window, buffer)
        pieces: list[memoryview] = []
        start = end = 0  # of what was passed on last, and can be passed on together with what lies behind it
        for block in window:
            if block.codec == Codec.ZERO:
                pieces.append(_ZEROS[: block.length_bytes])
                start = end = 0
                continue
            at = places[block.pack, block.offset_bytes]
            piece = self._sound(block, buffer[at : at + block.stored_bytes])
            if block.codec != Codec.RAW:
                end = 0
            elif end and at == end:
                pieces.pop()
                end += block.length_bytes
                piece = buffer[start:end]
            else:
                start, end = at, at + block.length_bytes
            pieces.append(piece)
        return pieces

    def _sound(self, block: Block, stored: memoryview) -> memoryview:
        """The contents of a block, which are what they were. Raises ContainerDamaged."""
        try:
            contents = stored
            if block.codec != Codec.RAW:
                contents = memoryview(compression.decode(block.codec, stored, block.length_bytes))
        except compression.NotDecodable:
            contents = stored[:0]
        if blake3(contents).digest() != block.digest:
            raise damaged(f"the block at byte {block.offset_bytes}{self._of(block)} is altered")
        return contents

    def _fetch(self, window: list[Block], buffer: memoryview) -> dict[tuple[int, int], int]:
        """Read all blocks with as few requests as possible; where each of them (pack, offset) lies in the buffer."""
        places = {}
        filled = 0
        for span in _spans(window):
            first = span[0].offset_bytes // ALIGNMENT * ALIGNMENT
            end = max(block.offset_bytes + block.stored_bytes for block in span)
            self._read(span[0], first, end, buffer[filled:])
            for block in span:
                places[block.pack, block.offset_bytes] = filled + block.offset_bytes - first
            filled += container.aligned(end) - first
        return places

    def _read(self, block: Block, start: int, end: int, buffer: memoryview) -> None:
        descriptor = self._descriptors[block.pack]
        if self._buffered and blockfile.is_cached(descriptor, start, end - start):
            descriptor, self.took_from_cache = self._buffered[block.pack], True
        try:
            size = blockfile.read_all(descriptor, buffer[: container.aligned(end) - start], start)
        except (OSError, OverflowError) as error:
            raise damaged(
                f"the disk does not give back the block at byte {block.offset_bytes}{self._of(block)} ({error})"
            ) from error
        if size < end - start:
            raise damaged(f"the block at byte {block.offset_bytes}{self._of(block)} is not there")

    def _gap(self, start: int, end: int) -> memoryview:
        page = blockfile.allocate(ALIGNMENT)
        first = start // ALIGNMENT * ALIGNMENT
        self._read(Block(start, 0, 0, Codec.RAW, 0, b""), first, end, page)
        return page[start - first : end - first]

    def _of(self, block: Block) -> str:
        return f" of images/{self.index.packs[block.pack].name}" if block.pack else ""


def verify(path: Path, digest: str, on_piece: Callable[[int], None]) -> None:
    """Read every byte; `digest` is what the index must have, `on_piece` as for Reader.check.

    Raises ContainerDamaged, FileTrouble, and what `on_piece` raises.
    """
    with Reader(path) as reader:
        require_digest(reader.index, digest)
        reader.check(on_piece)


def require_digest(index: Index, digest: str) -> None:
    """See that it is the container that was written, and not just one. Raises ContainerDamaged."""
    if index.digest.hex() != digest:
        raise damaged("it is another one than that of the dump")


def is_hole(piece: memoryview) -> bool:
    """Whether a piece that was read is zeros that are not stored."""
    return piece.obj is _ZEROS.obj


def open_pack(path: Path, pack_id: bytes) -> int:
    """A pack, to be read past the page cache. Raises ContainerDamaged, FileTrouble."""
    try:
        descriptor = blockfile.open_existing(path)
    except FileNotFoundError as error:
        raise damaged(_missing(path)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        page = blockfile.allocate(ALIGNMENT)
        try:
            size = blockfile.read_all(descriptor, page, 0)
        except OSError as error:
            raise damaged(f"the disk does not give back the header of images/{path.name} ({error})") from error
        if container.parse_header(bytes(page[:size])) != pack_id:
            raise damaged(f"images/{path.name} is another one than it refers to")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_index(path: Path) -> Index:
    """Through the page cache: it is small, and lies where it ends. Raises ContainerDamaged, FileTrouble."""
    try:
        with open(blockfile.open_regular(path), "rb", buffering=0) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            end = _read(file.fileno(), file_bytes - Footer.SIZE_BYTES, Footer.SIZE_BYTES)
            footer = container.parse_footer(end, file_bytes)
            index = _read(file.fileno(), footer.index_offset_bytes, footer.index_bytes)
    except FileNotFoundError as error:
        raise damaged(_missing(path)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return container.parse_index(index, footer)


def _windows(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks that are read at once: no more contents than GROUP_BYTES, and room for them in any case."""
    window: list[Block] = []
    contents = room = 0
    for block in blocks:
        needed = block.stored_bytes + 2 * ALIGNMENT if block.stored_bytes else 0
        if contents + block.length_bytes > GROUP_BYTES or room + needed > _ROOM_BYTES - _SMALL_GAP_BYTES:
            yield window
            window, contents, room = [], 0, 0
        window.append(block)
        contents += block.length_bytes
        room += needed
    if window:
        yield window


def _spans(window: list[Block]) -> Iterator[list[Block]]:
    """Blocks that lie close together, one list for each request to the disk."""
    span: list[Block] = []
    end = 0
    spare = _SMALL_GAP_BYTES
    for block in sorted(
        (block for block in window if block.stored_bytes), key=lambda one: (one.pack, one.offset_bytes)
    ):
        gap = block.offset_bytes - end
        if span and (block.pack != span[0].pack or gap > spare):
            yield span
            span, end = [], 0
        elif span:
            spare -= max(gap, 0)
        span.append(block)
        end = max(end, block.offset_bytes + block.stored_bytes)
    if span:
        yield span


def _read(descriptor: int, offset_bytes: int, size: int) -> bytes:
    data = b""
    while offset_bytes >= 0 and len(data) < size:
        piece = os.pread(descriptor, size - len(data), offset_bytes + len(data))
        if not piece:
            break
        data += piece
    return data


def _missing(path: Path) -> str:
    return (
        "it is missing"
        if path.name == container.FILE_NAME
        else f"images/{path.name}, which holds part of it, is missing"
    )


def _unreadable(path: Path, error: OSError) -> files.FileTrouble:
    return files.FileTrouble(
        f"{path} cannot be read: {error.strerror or error}.", hint="Check the permissions and the disk."
    )


_ZEROS = memoryview(bytes(GROUP_BYTES))
