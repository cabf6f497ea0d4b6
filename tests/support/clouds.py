"""The metadata servers of clouds, with the rules that theirs have: tokens, headers, questions that are held."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from support.web import Asked, Reply


@dataclass(slots=True)
class Ec2:
    """Amazon's, version 2: nothing without a token that it has given and that has not expired."""

    spot_action: object = None
    maintenance: object = None
    rebalance: object = None
    tokens: set[str] = field(default_factory=set)
    tokens_given: int = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/latest/api/token":
            return self._token(asked)
        if asked.headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return Reply(401)
        said = {
            "/latest/meta-data/spot/instance-action": self.spot_action,
            "/latest/meta-data/events/maintenance/scheduled": self.maintenance,
            "/latest/meta-data/events/recommendations/rebalance": self.rebalance,
        }.get(asked.path)
        if said is None:
            return Reply(404, "<html>404 - Not Found</html>")
        return Reply(text=said if isinstance(said, str) else json.dumps(said))

    def expire_tokens(self) -> None:
        self.tokens.clear()

    def _token(self, asked: Asked) -> Reply:
        ttl = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if asked.method != "PUT" or "x-forwarded-for" in asked.headers:
            return Reply(403)
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            return Reply(400)
        self.tokens_given += 1
        token = f"AQAEAL{self.tokens_given}=="
        self.tokens.add(token)
        return Reply(text=token)


class ComputeEngine:
    """Google's: asks for its header, and holds a question until the value is another than that of `last_etag`."""

    def __init__(self) -> None:
        self._values = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self._changed = threading.Condition()

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata-flavor") != "Google":
            return Reply(403)
        key = asked.path.removeprefix("/computeMetadata/v1/instance/")
        if key not in self._values:
            return Reply(404)
        with self._changed:
            if asked.query.get("wait_for_change") == "true":
                self._hold(key, asked)
            value = self._values[key]
        return Reply(text=value, headers={"Metadata-Flavor": "Google", "ETag": _etag(value)})

    def _hold(self, key: str, asked: Asked) -> None:
        known = asked.query.get("last_etag", _etag(self._values[key]))
        until_s = time.monotonic() + float(asked.query.get("timeout_sec", "3600"))
        while known == _etag(self._values[key]) and (left_s := until_s - time.monotonic()) > 0:
            self._changed.wait(left_s)


def _etag(value: str) -> str:
    return f"{abs(hash(value)):016x}"


@dataclass(slots=True)
class Azure:
    """Microsoft's: asks for its header and a version, and tells each machine about all of its set."""

    own_name: str = "gpt_1"
    events: list[dict[str, Any]] = field(default_factory=list)
    first_wait_s: float = 0.0
    questions: int = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.headers.get("metadata") != "true" or "api-version" not in asked.query:
            return Reply(400, json.dumps({"error": "Bad request"}))
        if asked.path == "/metadata/instance/compute/name":
            return Reply(text=self.own_name if asked.query.get("format") == "text" else json.dumps(self.own_name))
        if asked.path != "/metadata/scheduledevents":
            return Reply(404)
        self.questions += 1
        wait_s = self.first_wait_s if self.questions == 1 else 0.0
        return Reply(text=json.dumps({"DocumentIncarnation": self.questions, "Events": self.events}), wait_s=wait_s)


def azure_event(kind: str, resources: tuple[str, ...] = ("gpt_1",), **changed: str) -> dict[str, Any]:
    """One scheduled event, half a minute ahead of 2026-11-21 12:00:00 UTC."""
    event = {
        "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
        "EventStatus": "Scheduled",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(resources),
        "NotBefore": "Sat, 21 Nov 2026 12:00:30 GMT",
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    }
    return {**event, **changed}
