"""A dump: from a running job to a committed snapshot, with the job running or restorable at every instant."""

from __future__ import annotations

from contextlib import ExitStack

from ckptctl.snapshot.dump_request import DumpReport, DumpRequest
from ckptctl.snapshot.dumping import Dump
from ckptctl.snapshot.services import Services


def dump(request: DumpRequest, services: Services) -> DumpReport:
    """Save the job and, unless it is to go on, end it.

    Raises NoSuchProcess, Refused (blockers), Locked, NoSpace, TargetNotEmpty, CriuDumpFailed and the interrupt's
    exceptions: the job then runs on as before and nothing is listed. Raises JobLost where it does not.
    """
    with ExitStack() as held:
        return Dump(request, services, held).run()
