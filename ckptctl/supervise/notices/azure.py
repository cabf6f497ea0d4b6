"""Notices of Microsoft Azure: the scheduled events of its metadata service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ckptctl.supervise.notices.metadata import TIMEOUT_S, MetadataServer
from ckptctl.supervise.notices.notice import Notice, NoticeKind, most_urgent
from ckptctl.supervise.notices.times import mail_time_s

METADATA: Final = "http://169.254.169.254"
_EVENTS: Final = "/metadata/scheduledevents?api-version=2020-07-01"
_OWN_NAME: Final = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
_HEADERS: Final = {"Metadata": "true"}
# The first question switches the service on, and may be answered only after two minutes.
_FIRST_TIMEOUT_S: Final = 130.0
# `Freeze` is missing: the machine stands still for some seconds and goes on.
_KINDS: Final = {
    "Preempt": NoticeKind.PREEMPTION,
    "Terminate": NoticeKind.PREEMPTION,
    "Reboot": NoticeKind.MAINTENANCE,
    "Redeploy": NoticeKind.MAINTENANCE,
}


class AzureNotices:
    """Events that end this machine: at least 30 seconds ahead for Spot, 10 to 15 minutes for maintenance.

    They are never acknowledged: that would let Azure begin at once, also for other machines that the event is about.
    """

    name = "azure"
    interval_s = 2.0

    def __init__(self, base: str = METADATA, *, now_s: Callable[[], float]) -> None:
        self._server = MetadataServer(base, "Azure")
        self._now_s = now_s
        self._own_name: str | None = None
        self._answered = False

    def poll(self) -> Notice | None:
        timeout_s = TIMEOUT_S if self._answered else _FIRST_TIMEOUT_S
        answer = self._server.ask(_EVENTS, _HEADERS, timeout_s=timeout_s)
        if answer.status != 200:
            raise self._server.unexpected(answer, "the scheduled events")
        said = self._server.parsed(answer, "the scheduled events")
        events = said.get("Events") if isinstance(said, dict) else None
        if not isinstance(events, list):
            raise self._server.unavailable("lists no scheduled events", "ckptctl asks again.")
        self._answered = True
        found = (self._notice(event) for event in events if isinstance(event, dict))
        return most_urgent(tuple(notice for notice in found if notice is not None))

    def close(self) -> None:
        """Nothing is held between polls."""

    def _notice(self, event: dict[str, object]) -> Notice | None:
        kind = _KINDS.get(str(event.get("EventType")))
        if kind is None or not self._is_about_us(event.get("Resources")):
            return None
        words = f"Azure has scheduled {event['EventType']} of this machine"
        if event.get("Description"):
            words += f": {event['Description']}"
        if event.get("EventStatus") == "Started":
            return Notice(self.name, kind, words, self._now_s())
        # It is empty for an event that has begun.
        return Notice(self.name, kind, words, mail_time_s(str(event.get("NotBefore", ""))))

    def _is_about_us(self, resources: object) -> bool:
        """Whether the event names this machine: those of a whole scale set or availability set are sent to each."""
        if not isinstance(resources, list) or not resources:
            return True
        if self._own_name is None:
            answer = self._server.ask(_OWN_NAME, _HEADERS)
            if answer.status != 200 or not answer.text.strip():
                return True  # rather one snapshot too many
            self._own_name = answer.text.strip()
        return self._own_name in resources
