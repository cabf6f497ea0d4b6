"""Writing a container: blocks from several threads, each where the last one ended, then the index."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from ckptctl.images import blockfile, container
from ckptctl.images.container import ZERO_BLOCK, Block, Codec


@dataclass(frozen=True, slots=True)
class Sealed:
    """A container that is complete and on the disk. `digest` stands for all that it holds."""

    size_bytes: int
    contents_bytes: int
    zero_bytes: int
    digest: str


@dataclass(slots=True)
class _Image:
    name: str
    size_bytes: int = 0
    blocks: dict[int, Block] = field(default_factory=dict)


class Writer:
    """A new container at `path`, which must not exist. Closing it without `seal` leaves half a file behind."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._descriptor = blockfile.open_new(path)
        self._images: dict[str, _Image] = {}
        self._end_bytes = container.ALIGNMENT
        self._zero_bytes = 0
        self._lock = threading.Lock()
        try:
            self._write_header()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, number: int, buffer: memoryview, length_bytes: int) -> None:
        """Store what is at the beginning of a pool's buffer as the block `number` of an image. From any thread.

        Every block but an image's last is full; an image without blocks is announced with a length of 0.
        What is behind the contents is overwritten by zeros. Raises OSError.
        """
        block = self._store(buffer, length_bytes) if length_bytes else None
        with self._lock:
            image = self._images.setdefault(name, _Image(name))
            if block is not None:
                image.blocks[number] = block
                image.size_bytes += length_bytes
                self._zero_bytes += length_bytes if block is ZERO_BLOCK else 0

    def seal(self) -> Sealed:
        """Write the index and bring all to the disk; no thread adds any more. Raises OSError."""
        images = [
            (image.name, image.size_bytes, [image.blocks[number] for number in range(len(image.blocks))])
            for image in sorted(self._images.values(), key=lambda one: one.name)
        ]
        data, digest = container.tail(self._end_bytes, images)
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
            digest=digest.hex(),
        )

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_header(self) -> None:
        piece = blockfile.allocate(container.ALIGNMENT, populate=False)
        piece[:] = container.header()
        blockfile.write_all(self._descriptor, piece, 0)

    def _store(self, buffer: memoryview, length_bytes: int) -> Block:
        piece = buffer[:length_bytes]
        if blockfile.is_zero(piece):
            return ZERO_BLOCK
        digest = blake3(piece).digest()
        stored = container.aligned(length_bytes)
        buffer[length_bytes:stored] = bytes(stored - length_bytes)
        with self._lock:
            offset = self._end_bytes
            self._end_bytes += stored
        blockfile.write_all(self._descriptor, buffer[:stored], offset)
        return Block(offset, length_bytes, Codec.RAW, digest)
