"""How much time a smaller snapshot may take: what one may choose. Apart from what does it, for it is imported often."""

from __future__ import annotations

from enum import StrEnum


class Compression(StrEnum):
    """How much time a smaller snapshot may take."""

    OFF = "off"
    FAST = "fast"  # zstd, level -5
    AUTO = "auto"  # zstd, level 1, or planes, as a sample of every few blocks says
    BETTER = "better"  # zstd, level 3, or planes, whichever makes the block smallest
