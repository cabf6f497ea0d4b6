"""Writing a container: the contents of whole buffers from several threads, each cut into blocks, then the index."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from ckptctl.images import blockfile, container
from ckptctl.images.compression import Encoder
from ckptctl.images.container import ALIGNMENT, GROUP_BYTES, Block, Codec, Pack
from ckptctl.images.cutting import cut, end_of_part
from ckptctl.images.known import Known
from ckptctl.images.levels import Compression


@dataclass(frozen=True, slots=True)
class Sealed:
    """A container that is complete and on the disk. `digest` stands for all that it holds.

    Of the contents, what CRIU wrote, `zero_bytes` are zeros and `shared_bytes` are stored already, in an earlier pack
    or further ahead in this one; `stored_bytes` is what the others take. `packs` are the files of the earlier packs
    that it refers to, links beside it.
    """

    size_bytes: int
    contents_bytes: int
    zero_bytes: int
    shared_bytes: int
    stored_bytes: int
    digest: str
    packs: tuple[str, ...]


@dataclass(slots=True)
class _Image:
    name: str
    size_bytes: int = 0
    entries: dict[int, bytes] = field(default_factory=dict)


class Writer:
    """A new container at `path`, which must not exist. Closing it without `seal` leaves half a file behind."""

    def __init__(self, path: Path, compression: Compression = Compression.OFF, known: Known | None = None) -> None:
        """`known`: blocks that need not be stored; its links lie beside `path`. Raises OSError, ZstdMissing."""
        self._known = Known(path.parent) if known is None else known
        self._encoder = None if compression is Compression.OFF else Encoder(compression)
        self._own = _Own()
        self._path = path
        self._descriptor = blockfile.open_new(path)
        self._packs = [Pack(os.urandom(container.PACK_ID_BYTES), 0)]
        # The numbers that packs have here by those in the snapshot that is known.
        self._numbers: dict[int, int] = {}
        self._images: dict[str, _Image] = {}
        # What is stored, by its digest: its entry in the index without the digest. It grows by some 250 bytes for each
        # block, 2.5 MiB for 1 GiB.
        self._places: dict[bytes, bytes] = {}
        self._end_bytes = ALIGNMENT
        self._zero_bytes = 0
        self._shared_bytes = 0
        self._stored_bytes = 0
        self._lock = threading.Lock()
        try:
            self._write_header()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, number: int, buffer: memoryview, length_bytes: int) -> None:
        """Store what is at the beginning of a pool's buffer as the part `number` of an image. From any thread.

        Every part but an image's last is whole pages; an image without contents is announced with a length of 0.
        What is behind the contents is overwritten by zeros. Raises OSError.
        """
        entries = self._store(buffer, length_bytes) if length_bytes else b""
        with self._lock:
            image = self._images.setdefault(name, _Image(name))
            image.entries[number] = entries
            image.size_bytes += length_bytes

    def add_image(self, name: str, pieces: Iterable[bytes | memoryview], buffer: memoryview) -> None:
        """Store an image that comes in pieces of any length, with a buffer of GROUP_BYTES. Raises OSError."""
        number = filled = 0
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                size = min(len(rest), GROUP_BYTES - filled)
                buffer[filled : filled + size] = rest[:size]
                filled, rest = filled + size, rest[size:]
                if filled == GROUP_BYTES:
                    end = end_of_part(buffer)
                    self.add(name, number, buffer, end)
                    number, filled = number + 1, GROUP_BYTES - end
                    buffer[:filled] = bytes(buffer[end:])
        if filled or not number:
            self.add(name, number, buffer, filled)

    def seal(self) -> Sealed:
        """Write the index and bring all to the disk; no thread adds any more. Raises OSError."""
        images = [
            (image.name, image.size_bytes, b"".join(image.entries[number] for number in range(len(image.entries))))
            for image in sorted(self._images.values(), key=lambda one: one.name)
        ]
        packs = tuple(pack.name for pack in self._packs[1:])
        self._known.keep_only(frozenset(packs))
        data, digest = container.tail(self._end_bytes, self._packs, images)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "wb") as file:
            file.seek(self._end_bytes)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        return Sealed(
            size_bytes=self._end_bytes + len(data),
            contents_bytes=sum(size_bytes for _, size_bytes, _ in images),
            zero_bytes=self._zero_bytes,
            shared_bytes=self._shared_bytes,
            stored_bytes=self._stored_bytes,
            digest=digest.hex(),
            packs=packs,
        )

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_header(self) -> None:
        piece = blockfile.allocate(ALIGNMENT)
        piece[:] = container.header(self._packs[0].id)
        blockfile.write_all(self._descriptor, [piece], 0)

    def _store(self, buffer: memoryview, length_bytes: int) -> bytes:
        """Store one group, and give its entries of the index."""
        if blockfile.is_zero(buffer[:length_bytes]):
            self._count(zero_bytes=length_bytes)
            return container.zero_entry(length_bytes)
        found: list[tuple[int, bytes]] = []
        fresh: dict[bytes, tuple[int, int]] = {}
        for start, end, looks_zero in cut(buffer[:length_bytes]):
            piece = buffer[start:end]
            if looks_zero and blockfile.is_zero(piece):
                found.append((end - start, b""))
                continue
            digest = blake3(piece).digest()
            found.append((end - start, digest))
            if digest not in self._places and not self._refer(digest):
                fresh[digest] = start, end
        # Another thread may store the same block at this moment: either refers to its own copy.
        places = self._write(buffer, fresh) if fresh else {}
        self._places.update(places)
        stored = sum(end - start for start, end in fresh.values())
        zero = sum(length for length, digest in found if not digest)
        self._count(zero_bytes=zero, shared_bytes=length_bytes - zero - stored)
        return b"".join(
            (places.get(digest) or self._places[digest]) + digest if digest else container.zero_entry(length)
            for length, digest in found
        )

    def _refer(self, digest: bytes) -> bool:
        """Refer to a block of an earlier snapshot, where there is such a one."""
        place = self._known.places.get(digest)
        if place is None:
            return False
        block = container.decode(place + digest)
        with self._lock:
            if block.pack not in self._numbers:
                self._numbers[block.pack] = len(self._packs)
                self._packs.append(self._known.packs[block.pack])
        self._places[digest] = container.encode_place(block._replace(pack=self._numbers[block.pack]))
        return True

    def _write(self, buffer: memoryview, fresh: dict[bytes, tuple[int, int]]) -> dict[bytes, bytes]:
        """Lay the blocks one behind the other; their places by their digests."""
        encoded = self._encode(buffer, list(fresh.values()))
        size = sum(len(data) for _, data in encoded)
        if all(codec is Codec.RAW for codec, _ in encoded):
            pieces = _without_copying(buffer, list(fresh.values()))
        else:
            pieces = [_gather(self._own.buffer, encoded)]
        offset = self._allocate(size)
        blockfile.write_all(self._descriptor, pieces, offset)
        places = {}
        for (digest, (start, end)), (codec, data) in zip(fresh.items(), encoded, strict=True):
            places[digest] = container.encode_place(Block(offset, len(data), end - start, codec, 0, digest))
            offset += len(data)
        return places

    def _encode(self, buffer: memoryview, spans: list[tuple[int, int]]) -> list[tuple[Codec, bytes | memoryview]]:
        blocks = [buffer[start:end] for start, end in spans]
        return [(Codec.RAW, block) for block in blocks] if self._encoder is None else [*self._encoder.encode(blocks)]

    def _allocate(self, size_bytes: int) -> int:
        with self._lock:
            offset = self._end_bytes
            self._end_bytes += container.aligned(size_bytes)
            self._stored_bytes += size_bytes
        return offset

    def _count(self, *, zero_bytes: int, shared_bytes: int = 0) -> None:
        with self._lock:
            self._zero_bytes += zero_bytes
            self._shared_bytes += shared_bytes


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.buffer = blockfile.allocate(GROUP_BYTES)


def _without_copying(buffer: memoryview, spans: list[tuple[int, int]]) -> list[memoryview]:
    """The parts of the buffer, the last one with zeros up to the next page: only the last can end within one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    start, end = joined[-1]
    joined[-1] = start, container.aligned(end)
    buffer[end : container.aligned(end)] = bytes(container.aligned(end) - end)
    return [buffer[start:end] for start, end in joined]


def _gather(buffer: memoryview, encoded: list[tuple[Codec, bytes | memoryview]]) -> memoryview:
    """All of it at the beginning of the buffer, with zeros up to the next page."""
    end = 0
    for _, data in encoded:
        buffer[end : end + len(data)] = data
        end += len(data)
    buffer[end : container.aligned(end)] = bytes(container.aligned(end) - end)
    return buffer[: container.aligned(end)]
