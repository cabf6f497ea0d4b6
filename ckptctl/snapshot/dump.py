"""A dump: from a running job to a committed snapshot, with the job running or restorable at every instant."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from ckptctl.events import Caution
from ckptctl.images.protocol import StreamBroken
from ckptctl.snapshot.dump_request import DumpReport, DumpRequest
from ckptctl.snapshot.dumping import Dump
from ckptctl.snapshot.services import Services
from ckptctl.snapshot.ways import Layout


def dump(request: DumpRequest, services: Services) -> DumpReport:
    """Save the job and, unless it is to go on, end it.

    Where the stream of images breaks off for a reason of its own, the job is saved once more, with files of criu.
    Raises NoSuchProcess, Refused (blockers), Locked, NoSpace, TargetNotEmpty, CriuDumpFailed and the interrupt's
    exceptions: the job then runs on as before and nothing is listed. Raises JobLost where it does not.
    """
    try:
        return _dump(request, services)
    except StreamBroken as error:
        # Nothing but a JobLost is raised where the job does not run again.
        if getattr(error, "__notes__", ()):
            raise
        reason = f"{error.message} The job runs on; it is saved once more, and criu writes its files itself."
    services.reporter.report(Caution(reason, "W_IMAGE_STREAM"))
    report = _dump(replace(request, way=replace(request.way, layout=Layout.DIRECTORY)), services)
    return replace(report, warnings=(reason, *report.warnings))


def _dump(request: DumpRequest, services: Services) -> DumpReport:
    with ExitStack() as held:
        return Dump(request, services, held).run()
