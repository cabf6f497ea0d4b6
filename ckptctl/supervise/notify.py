"""Tells people how a run fares: in the background, a bounded number of times, never at the cost of the run."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, Protocol

from ckptctl.errors import CkptctlError, ExitStatus, UsageError
from ckptctl.events import Caution, Reporter

VERSION: Final = 1
# The second try comes after the first of these pauses, and so on; then the message is given up.
RETRY_PAUSES_S: Final = (1.0, 5.0, 25.0)
# A target that hangs must not make us hold every message of a long run.
_MOST_WAITING: Final = 100


class NotifyFailed(CkptctlError):
    """A notification could not be delivered."""

    code = "E_NOTIFY"
    exit_status = ExitStatus.PARTIAL

    def __init__(self, message: str, *, hint: str, again: bool, after_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.again = again
        """Whether another try may succeed."""
        self.after_s = after_s
        """How long the other side asks us to wait before."""


class NotifyEvent(Enum):
    """What may be told; the values are the words of `--notify-on`."""

    FAILURE = "failure"
    """A snapshot failed."""
    HUNG = "hung"
    """The job makes no progress."""
    PREEMPTED = "preempted"
    """The job was ended because its machine goes away."""
    RESUMED = "resumed"
    """The job was restored and goes on."""
    ENDED = "ended"
    """The job has come to its end, good or bad."""
    CRASH_LOOP = "crash-loop"
    """The job dies again and again at the same step, and is not started again."""
    DISK_LOW = "disk-low"
    """The space for snapshots runs out."""


# What asks for a person, or is the end; to be resumed is what every preemption is followed by.
DEFAULT_EVENTS: Final = frozenset(NotifyEvent) - {NotifyEvent.RESUMED}


@dataclass(frozen=True, slots=True)
class Notification:
    """One message: `text` is a sentence for people; `facts` are for programs, beside it and not in place of it."""

    event: NotifyEvent
    run: str
    host: str
    text: str
    at_s: float
    facts: tuple[tuple[str, str | int | float | None], ...] = ()

    @property
    def headline(self) -> str:
        return f"{self.run} on {self.host}: {self.text}"

    def document(self) -> dict[str, object]:
        """What a webhook gets; Slack, Mattermost and Discord's /slack address show `text`."""
        return {
            "text": self.headline,
            "version": VERSION,
            "event": self.event.value,
            "run": self.run,
            "host": self.host,
            "time": datetime.fromtimestamp(self.at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "message": self.text,
            "facts": dict(self.facts),
        }

    def json(self) -> bytes:
        return json.dumps(self.document()).encode()


class NotifyTarget(Protocol):
    """Somebody who can be told."""

    @property
    def label(self) -> str:
        """The target without its secrets."""

    def deliver(self, notification: Notification) -> None:
        """Tell it once, within bounded time. Raises NotifyFailed."""


def parse_events(text: str) -> frozenset[NotifyEvent]:
    """The events of `--notify-on failure,preempted`, or all of them for `all`. Raises UsageError."""
    if text.strip() == "all":
        return frozenset(NotifyEvent)
    known = {event.value: event for event in NotifyEvent}
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        what = f"{unknown[0]!r} is no event" if unknown else "No event is named"
        raise UsageError(f"--notify-on: {what}.", hint=f"Known are {', '.join(known)} and all.")
    return frozenset(known[word] for word in words)


class Notifier:
    """Hands each message to every target; each has a thread of its own, so that none waits for another."""

    def __init__(
        self,
        targets: Iterable[NotifyTarget],
        reporter: Reporter,
        *,
        events: frozenset[NotifyEvent] = DEFAULT_EVENTS,
        pauses_s: tuple[float, ...] = RETRY_PAUSES_S,
    ) -> None:
        self._events = events
        self._posts = tuple(_Post(target, reporter, pauses_s) for target in targets)

    def send(self, notification: Notification) -> None:
        """Tell it, if it is one of the events that were asked for; returns at once and never raises."""
        if notification.event in self._events:
            for post in self._posts:
                post.put(notification)

    def close(self, wait_s: float) -> None:
        """Give what is under way `wait_s` seconds in all, then drop the rest and say so."""
        until_s = time.monotonic() + wait_s
        for post in self._posts:
            post.finish()
        for post in self._posts:
            post.join(until_s)


class _Post:
    """The queue of one target and the thread that empties it."""

    def __init__(self, target: NotifyTarget, reporter: Reporter, pauses_s: tuple[float, ...]) -> None:
        self._target = target
        self._reporter = reporter
        self._pauses_s = pauses_s
        self._waiting: queue.SimpleQueue[Notification | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()

    def put(self, notification: Notification) -> None:
        if self._waiting.qsize() >= _MOST_WAITING:
            self._lost(notification, "Too many messages are waiting.")
            return
        self._waiting.put(notification)
        if self._thread is None:
            # A daemon: a target that never answers must not keep ckptctl from ending.
            self._thread = threading.Thread(target=self._empty, name="notify", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        self._waiting.put(None)

    def join(self, until_s: float) -> None:
        if self._thread is None:
            return
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            self._given_up.set()
            self._say(f"Not every message has reached {self._target.label} before the end.")

    def _empty(self) -> None:
        while (notification := self._waiting.get()) is not None and not self._given_up.is_set():
            self._deliver(notification)

    def _deliver(self, notification: Notification) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                self._target.deliver(notification)
            except NotifyFailed as error:
                if pause_s is None or not error.again:
                    self._lost(notification, f"{error.message} {error.hint}")
                    return
                if self._given_up.wait(max(pause_s, error.after_s)):
                    return
            else:
                return

    def _lost(self, notification: Notification, why: str) -> None:
        self._say(f"{self._target.label} was not told about {notification.event.value!r}: {why}")

    def _say(self, text: str) -> None:
        self._reporter.report(Caution(text, NotifyFailed.code))
