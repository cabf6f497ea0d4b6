"""Jobs that die again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ckptctl.supervise.supervision import Death

IN_A_ROW: Final = 3


def is_loop(deaths: Sequence[Death]) -> bool:
    """Whether the last three deaths were at one step: what made the job die will do so the next time too.

    Where no step is known, three deaths without a snapshot in between count as one and the same place.
    """
    last = deaths[-IN_A_ROW:]
    return len(last) == IN_A_ROW and len({_place(one) for one in last}) == 1


def _place(death: Death) -> tuple[str, int | str | None]:
    return ("step", death.step) if death.step is not None else ("snapshot", death.restored_from)
