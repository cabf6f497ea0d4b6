"""Questions with a limit: their answers, their errors, and those that do not come."""

from __future__ import annotations

import threading
import time

import pytest

from ckptctl.errors import UsageError
from ckptctl.preflight.asked import Asked, NothingHeard, within
from ckptctl.preflight.unknown import Unknown


def test_an_answer_is_given_on() -> None:
    assert within(30.0, "it", lambda: None) is None
    assert Asked("it", lambda: 7).answer(time.monotonic() + 30) == 7


def test_an_error_is_a_fact_or_is_raised() -> None:
    def fail() -> int:
        raise UsageError("It is wrong.")

    assert Asked("it", fail).answer(time.monotonic() + 30) == Unknown("Nothing could be learned about it: It is wrong.")
    with pytest.raises(UsageError):
        within(30.0, "it", fail)


def test_who_does_not_answer_is_not_waited_for() -> None:
    never = threading.Event()
    try:
        with pytest.raises(NothingHeard, match="about it within 0 s"):
            within(0.05, "it", lambda: never.wait(60))
        assert isinstance(Asked("it", lambda: never.wait(60)).answer(time.monotonic()), Unknown)
    finally:
        never.set()
