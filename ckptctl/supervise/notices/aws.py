"""Notices of Amazon EC2, from the instance metadata service, version 2 (tokens)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ckptctl.supervise.notices.metadata import Answer, MetadataServer
from ckptctl.supervise.notices.notice import Notice, NoticeKind, NoticeUnavailable, most_urgent
from ckptctl.supervise.notices.times import iso_time_s, mail_time_s

METADATA: Final = "http://169.254.169.254"
_TOKEN_TTL_S: Final = 21600
_TOKEN: Final = "/latest/api/token"
_ACTION: Final = "/latest/meta-data/spot/instance-action"
_REBALANCE: Final = "/latest/meta-data/events/recommendations/rebalance"
_MAINTENANCE: Final = "/latest/meta-data/events/maintenance/scheduled"
# Events are announced weeks ahead; until then they must not stand before advice.
_MAINTENANCE_LEAD_S: Final = 3600.0
_IN_A_CONTAINER: Final = (
    "In a container its answer may need another hop: "
    "aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 --instance-id ID"
)


class AwsNotices:
    """Spot interruptions, two minutes ahead and best effort; maintenance in its last hour; rebalance advice.

    Amazon recommends to look every five seconds. A 404 means that there is nothing to say.
    """

    name = "aws"
    interval_s = 5.0

    def __init__(self, base: str = METADATA, *, now_s: Callable[[], float]) -> None:
        self._server = MetadataServer(base, "Amazon EC2")
        self._now_s = now_s
        self._token: str | None = None

    def poll(self) -> Notice | None:
        return self._interruption() or self._maintenance() or self._rebalance()

    def close(self) -> None:
        """Nothing is held between polls."""

    def _interruption(self) -> Notice | None:
        answer = self._get(_ACTION)
        if answer is None:
            return None
        said = self._server.parsed(answer, "the spot action")
        # Simulators have written the longer name.
        action = (said.get("action") or said.get("instance-action")) if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(action, str):
            raise self._server.unavailable("names no spot action", "ckptctl asks again.")
        time = str(said.get("time", ""))
        words = f"EC2 will {action} this spot instance" + (f" at {time}" if time else "")
        return Notice(self.name, NoticeKind.PREEMPTION, words, iso_time_s(time))

    def _maintenance(self) -> Notice | None:
        answer = self._get(_MAINTENANCE)
        if answer is None:
            return None
        said = self._server.parsed(answer, "the maintenance events")
        events = said if isinstance(said, list) else [said]
        found = (self._scheduled(event) for event in events if isinstance(event, dict))
        return most_urgent(tuple(notice for notice in found if notice is not None))

    def _scheduled(self, event: dict[str, object]) -> Notice | None:
        time = str(event.get("NotBefore"))
        starts_s = mail_time_s(time)
        if event.get("State") != "active" or starts_s is None or starts_s - self._now_s() > _MAINTENANCE_LEAD_S:
            return None
        words = f"EC2 has scheduled {event.get('Code', 'maintenance')} of this instance at {time}"
        return Notice(self.name, NoticeKind.MAINTENANCE, words, starts_s)

    def _rebalance(self) -> Notice | None:
        answer = self._get(_REBALANCE)
        if answer is None:
            return None
        words = "EC2 recommends to leave this instance: its risk to be interrupted has risen"
        return Notice(self.name, NoticeKind.ADVICE, words)

    def _get(self, path: str) -> Answer | None:
        """The answer with status 200, None for a 404; a token that has expired is replaced once."""
        answer = self._server.ask(path, {"X-aws-ec2-metadata-token": self._token or self._fresh_token()})
        if answer.status == 401:
            answer = self._server.ask(path, {"X-aws-ec2-metadata-token": self._fresh_token()})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._server.unexpected(answer, path)
        return answer

    def _fresh_token(self) -> str:
        self._token = None
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)}
        try:
            answer = self._server.ask(_TOKEN, headers, method="PUT")
        except NoticeUnavailable as error:
            raise NoticeUnavailable(error.message, hint=f"{error.hint} {_IN_A_CONTAINER}") from error
        token = answer.text.strip()
        # A token is printable ASCII; anything else could not stand in a header, and is none.
        if answer.status != 200 or not token or not token.isascii() or not token.isprintable():
            raise self._server.unavailable(f"gave no token (status {answer.status})")
        self._token = token
        return token
