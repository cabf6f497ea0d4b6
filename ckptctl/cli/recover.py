"""ckptctl recover."""

from __future__ import annotations

from typing import Final

from ckptctl.cli.options import JsonOpt, QuietOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import ExitStatus
from ckptctl.output import text

STATUSES: Final = "Exit status: 0 nothing is left to mend; 3 something could not be mended; 11 locked."


def recover(json: JsonOpt = False, quiet: QuietOpt = False) -> int:
    """Finish or undo what a killed ckptctl has left.

    That is a job that stands still, or files moved aside. Every other command does the same before its own work.
    """
    manner = Manner(json, quiet)
    with session(manner, repair=False) as app:
        recovered = app.repair()
    failed = [one for one in recovered if one.error]
    words = text.sentences(one.sentence for one in recovered) or "Nothing is left to mend."
    return emit(manner, "recover", recovered, words, ExitStatus.PARTIAL if failed else ExitStatus.DONE)
