"""What `--on-notice` takes: aws, gcp, azure, file:PATH, command:WORDS."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ckptctl.errors import UsageError
from ckptctl.supervise.limited import split_words
from ckptctl.supervise.notices.notice import NoticeSource
from ckptctl.units import parse_duration

_CLOUD: Final = re.compile(r"(aws|gcp|azure)(?::([^@]+))?(?:@(.+))?")
_FORMS: Final = "Known are aws, gcp, gcp:120s, azure, file:PATH and command:WORDS."


def parse_notice_source(text: str, now_s: Callable[[], float]) -> NoticeSource:
    """The source that `--on-notice` names; nothing is asked yet. `now_s` gives Unix time.

    A cloud takes the address of another metadata server after an `@` (aws@http://127.0.0.1:1338), gcp the length of
    its notice after a `:`. Raises UsageError.
    """
    kind, _, rest = text.partition(":")
    if kind == "file":
        return _file(text, rest)
    if kind == "command":
        from ckptctl.supervise.notices.local import CommandNotices

        return CommandNotices(split_words("--on-notice command", rest), now_s=now_s)
    match = _CLOUD.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no source of preemption notices.", hint=_FORMS)
    return _cloud(text, match, now_s)


def _file(text: str, path: str) -> NoticeSource:
    from ckptctl.supervise.notices.local import FileNotices

    if not path:
        raise UsageError(f"{text!r} names no file.", hint="Write file:PATH.")
    return FileNotices(Path(path))


def _cloud(text: str, match: re.Match[str], now_s: Callable[[], float]) -> NoticeSource:
    name, lead, address = match.groups()
    if lead is not None and name != "gcp":
        raise UsageError(f"{text!r}: {name} tells by itself how long its notice is.", hint=f"Write {name}.")
    if address is not None:
        _check_address(text, address)
    if name == "aws":
        from ckptctl.supervise.notices.aws import METADATA, AwsNotices

        return AwsNotices(address or METADATA, now_s=now_s)
    if name == "azure":
        from ckptctl.supervise.notices.azure import METADATA, AzureNotices

        return AzureNotices(address or METADATA, now_s=now_s)
    from ckptctl.supervise.notices.gcp import METADATA, NOTICE_S, GcpNotices

    return GcpNotices(address or METADATA, now_s=now_s, notice_s=NOTICE_S if lead is None else parse_duration(lead))


def _check_address(text: str, address: str) -> None:
    hint = "Write it as http://HOST:PORT."
    try:
        parts = urlsplit(address)
        usable = parts.scheme == "http" and parts.hostname and (parts.port or 80) and not re.search(r"\s", address)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise UsageError(f"{text!r}: {address!r} is no address of a metadata server.", hint=hint)
