"""Questions that may hang (a dead file server, a broken GPU driver): each has its time, and then its place says so.

Each is asked in a thread that nobody waits for at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.preflight.unknown import Unknown

T = TypeVar("T")


class NothingHeard(CkptctlError):
    """Something that a check must know did not answer in time; nothing was touched."""

    code = "E_NOTHING_HEARD"
    exit_status = ExitStatus.TIMEOUT


class Asked(Generic[T]):
    """A question that is being answered in a thread of its own, from now on; `about` is what it is about."""

    def __init__(self, about: str, ask: Callable[[], T]) -> None:
        self._about = about
        self._ask = ask
        self._answer: list[T] = []
        self._error: Exception | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"ask about {about}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer.append(self._ask())
        except Exception as error:  # a fact that cannot be had is no failure of the check
            self._error = error

    def answer(self, deadline: float) -> T | Unknown:
        """What was answered by then (time.monotonic), or why there is no answer."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._answer:
            return self._answer[0]
        if self._error is not None:
            error = self._error
            said = error.message if isinstance(error, CkptctlError) else f"{type(error).__name__}: {error}"
            return Unknown(f"Nothing could be learned about {self._about}: {said}")
        return Unknown(f"Nothing was heard about {self._about} within {time.monotonic() - self._began:.0f} s.")

    def require(self, deadline: float) -> T:
        """What was answered by then (time.monotonic). Raises what the question raised, and NothingHeard."""
        found = self.answer(deadline)
        if self._answer:
            return self._answer[0]
        if self._error is not None:
            raise self._error
        assert isinstance(found, Unknown)
        raise NothingHeard(
            found.reason, hint="See whether its file system answers (`df`), and what it waits for: `dmesg`, `ps axl`."
        )


def within(limit_s: float, about: str, ask: Callable[[], T]) -> T:
    """The answer, if it comes within `limit_s`. Raises what `ask` raises, and NothingHeard."""
    return Asked(about, ask).require(time.monotonic() + limit_s)
