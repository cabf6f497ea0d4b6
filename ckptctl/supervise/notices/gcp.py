"""Notices of Google Compute Engine, from its metadata server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from ckptctl.supervise.notices.metadata import TIMEOUT_S, Answer, MetadataServer
from ckptctl.supervise.notices.notice import Notice, NoticeKind

# By address and not by name: a resolver that hangs would hang us beyond any timeout.
METADATA: Final = "http://169.254.169.254"
# From the soft-off signal, which comes with the notice, to the end. Machines that were created with
# --preemption-notice-duration=120s get as much more.
NOTICE_S: Final = 30.0
_MAINTENANCE_NOTICE_S: Final = 60.0
_INSTANCE: Final = "/computeMetadata/v1/instance/"
_HANG_S: Final = 10


class GcpNotices:
    """Preemption of Spot machines, and maintenance that ends those with GPUs.

    The server holds the question for the preemption until there is news, at most ten seconds; between two such the
    maintenance is asked for. Asking is also what makes Google give a warning of maintenance at all.
    """

    name = "gcp"
    # Only so that a server that does not hold questions is not asked without a pause.
    interval_s = 1.0

    def __init__(self, base: str = METADATA, *, now_s: Callable[[], float], notice_s: float = NOTICE_S) -> None:
        self._server = MetadataServer(base, "Google Compute Engine")
        self._now_s = now_s
        self._notice_s = notice_s
        self._etag = "0"  # matches no value: the first question is answered at once
        self._deadlines_s: dict[NoticeKind, float] = {}

    def poll(self) -> Notice | None:
        if self._get("maintenance-event").text.strip() == "TERMINATE_ON_HOST_MAINTENANCE":
            words = "Google will end this machine for maintenance of its host"
            maintenance = self._notice(NoticeKind.MAINTENANCE, words, _MAINTENANCE_NOTICE_S)
        else:
            self._deadlines_s.pop(NoticeKind.MAINTENANCE, None)
            maintenance = None
        if self._preempted(wait=maintenance is None and not self._deadlines_s):
            return self._notice(NoticeKind.PREEMPTION, "Google is preempting this machine", self._notice_s)
        self._deadlines_s.pop(NoticeKind.PREEMPTION, None)
        return maintenance

    def close(self) -> None:
        """Nothing is held between polls."""

    def _preempted(self, *, wait: bool) -> bool:
        query = f"?wait_for_change=true&timeout_sec={_HANG_S}&last_etag={quote(self._etag)}" if wait else ""
        answer = self._get(f"preempted{query}", timeout_s=TIMEOUT_S + (_HANG_S if wait else 0))
        self._etag = answer.headers.get("etag", "0")
        return answer.text.strip() == "TRUE"

    def _notice(self, kind: NoticeKind, words: str, lead_s: float) -> Notice:
        # The server names no time: it counts from when the notice was first seen.
        deadline_s = self._deadlines_s.setdefault(kind, self._now_s() + lead_s)
        return Notice(self.name, kind, words, deadline_s)

    def _get(self, key: str, timeout_s: float = TIMEOUT_S) -> Answer:
        answer = self._server.ask(_INSTANCE + key, {"Metadata-Flavor": "Google"}, timeout_s=timeout_s)
        if answer.status != 200:
            self._etag = "0"
            raise self._server.unexpected(answer, key.partition("?")[0])
        if answer.headers.get("metadata-flavor") != "Google":
            raise self._server.unavailable("is not Google's")
        return answer
