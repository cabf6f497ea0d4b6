"""A real HTTP server in this process, whose answers a test decides, and what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; names of headers are in small letters."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer; `raw` replaces everything, `drip_s` is the pause after each byte of the body."""

    status: int = 200
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drip_s: float = 0.0
    raw: bytes | None = None


Answering = Callable[[Asked], Reply]


class Web:
    """Answers on a free port of 127.0.0.1 until `close`; `asked` holds every request in the order of arrival."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        self._server: Final = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def paths(self) -> list[str]:
        return [asked.path for asked in list(self.asked)]

    def close(self) -> None:
        """Stop answering; requests that are being answered are cut off."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


Serve = Callable[[Answering], Web]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no matter."""


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.web = web
    return Handler


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        asked = Asked(self.command, parts.path, query, headers, body)
        self.web.asked.append(asked)
        with suppress(OSError):
            self._send(self.web.answer(asked))

    def do_PUT(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _send(self, reply: Reply) -> None:
        self.web.closing.wait(reply.wait_s)
        if reply.raw is not None:
            self.wfile.write(reply.raw)
            return
        body = reply.text.encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not reply.drip_s:
            self.wfile.write(body)
            return
        for start in range(len(body)):
            self.wfile.write(body[start : start + 1])
            time.sleep(reply.drip_s)

    def log_message(self, *_arguments: object) -> None:
        """What was asked is in `asked`."""
