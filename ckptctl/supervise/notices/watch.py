"""Watches sources of notices, each in a thread of its own, so that a source that hangs hangs alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Final

from ckptctl.events import Caution, Reporter
from ckptctl.events import Notice as Said
from ckptctl.supervise.notices.notice import Notice, NoticeSource, NoticeUnavailable, most_urgent

# Enough for a command to be killed.
_PARTING_S: Final = 0.3


class NoticeWatch:
    """Asks every source again and again; none of its methods waits for one.

    A source that cannot be asked is said once, and once more when it answers again; what it said before stands.
    """

    def __init__(self, sources: Iterable[NoticeSource], reporter: Reporter) -> None:
        self._sources = tuple(sources)
        self._reporter = reporter
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        # Each thread replaces the value of its own key alone, which needs no lock.
        self._found: dict[int, Notice | None] = dict.fromkeys(range(len(self._sources)))

    def start(self) -> None:
        """Begin to watch; call it once."""
        for number, source in enumerate(self._sources):
            # A daemon: a metadata server that never answers must not keep ckptctl from ending.
            thread = threading.Thread(
                target=self._watch, args=(number, source), name=f"notices-{source.name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def latest(self) -> Notice | None:
        """The most urgent notice that stands, None while there is none or where it was taken back."""
        return most_urgent(tuple(notice for notice in tuple(self._found.values()) if notice is not None))

    def stop(self) -> None:
        """End the watch; `latest` keeps its value. Waits a moment for what polls have started, never for a server."""
        self._stopped.set()
        for source in self._sources:
            source.close()
        until_s = time.monotonic() + _PARTING_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _watch(self, number: int, source: NoticeSource) -> None:
        silent = False
        while not self._stopped.is_set():
            try:
                notice = source.poll()
            except NoticeUnavailable as error:
                self._lost(source, error, said=silent)
                silent = True
            else:
                self._found[number] = notice
                if silent:
                    self._reporter.report(Said(f"Preemption notices of {source.name} can be read again."))
                silent = False
            self._stopped.wait(source.interval_s)

    def _lost(self, source: NoticeSource, error: NoticeUnavailable, *, said: bool) -> None:
        if said or self._stopped.is_set():
            return
        text = f"Preemption notices of {source.name} cannot be read, and the run goes on: {error.message} {error.hint}"
        self._reporter.report(Caution(text, error.code))
