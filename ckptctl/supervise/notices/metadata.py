"""The client of a cloud's metadata server: plain HTTP on the machine's own link, never through a proxy."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ckptctl.supervise.notices.notice import NoticeUnavailable

TIMEOUT_S: Final = 2.0
_MOST_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class MetadataServer:
    """One metadata server, `base` such as http://169.254.169.254; a connection for each request, no redirects."""

    base: str
    cloud: str

    def ask(
        self, path: str, headers: Mapping[str, str], *, method: str = "GET", timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """The server's answer, whatever its status. Raises NoticeUnavailable.

        `timeout_s` bounds the connection and each wait for more.
        """
        parts = urlsplit(self.base)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        try:
            connection.request(method, parts.path.rstrip("/") + path, headers=dict(headers))
            response = connection.getresponse()
            body = _body(response, time.monotonic() + timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise self.unavailable(_said(error)) from error
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, body.decode("utf-8", "replace"))

    def unavailable(self, what: str, hint: str | None = None) -> NoticeUnavailable:
        """The error for a server that does not do as it should."""
        return NoticeUnavailable(
            f"the metadata server {self.base} {what}.",
            hint=hint or f"Is this a machine of {self.cloud}? Leave the option away where it is not.",
        )

    def unexpected(self, answer: Answer, what: str) -> NoticeUnavailable:
        """The error for a status that this request should not get."""
        return self.unavailable(f"answered {what} with status {answer.status}", "ckptctl asks again.")

    def parsed(self, answer: Answer, what: str) -> object:
        """The JSON of an answer. Raises NoticeUnavailable."""
        try:
            return json.loads(answer.text)
        except (ValueError, RecursionError) as error:
            raise self.unavailable(f"answered {what} with something else than JSON", "ckptctl asks again.") from error


def _body(response: http.client.HTTPResponse, until_s: float) -> bytes:
    body = b""
    while piece := response.read1(_MOST_BYTES):
        body += piece
        if len(body) > _MOST_BYTES:
            raise http.client.HTTPException("too much")
        # The timeout of the socket starts anew with each piece: a server that drips would hold us for ever.
        if time.monotonic() > until_s:
            raise TimeoutError
    return body


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, OSError):
        return f"cannot be reached ({error.strerror or error})"
    return f"does not speak HTTP as it should ({type(error).__name__})"
