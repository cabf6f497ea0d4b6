"""What `criu dump` and `criu restore` have in common: where images and logs lie, and the options always given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ckptctl import files
from ckptctl.criu.program import Criu
from ckptctl.criu.running import IMAGES_OPTION, LOGS_OPTION

_NO_PLUGINS = "no-plugins"


def common_words(images: Path, logs: Path, log_name: str) -> list[str]:
    """The options of every run of criu; creates the empty plugin folder among the logs. Raises FileTrouble.

    Plugins are kept off because ckptctl drives CUDA itself; criu refuses a plugin folder that does not exist.
    """
    plugins = logs / _NO_PLUGINS
    files.make_private_folder(plugins)
    return [
        "--no-default-config",
        IMAGES_OPTION, str(images),
        LOGS_OPTION, str(logs),
        "-o", log_name,
        "-v4",
        "--libdir", str(plugins),
    ]  # fmt: skip


def command_line(prefix: Sequence[str], criu: Criu, action: str, words: Sequence[str]) -> tuple[str, ...]:
    """The whole command; `prefix` is what criu is started through (nsenter, unshare)."""
    return (*prefix, str(criu.path), action, *words)


def read_log(path: Path) -> str:
    """The log that criu left, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
