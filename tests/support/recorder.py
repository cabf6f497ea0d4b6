"""A reporter that keeps what it was told."""

from __future__ import annotations

from ckptctl.events import Caution, Event, Notice


class Recorder:
    """Keeps every event, from whatever thread."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is held."""

    def cautions(self) -> list[str]:
        return [event.text for event in list(self.events) if isinstance(event, Caution)]

    def notices(self) -> list[str]:
        return [event.text for event in list(self.events) if isinstance(event, Notice)]
