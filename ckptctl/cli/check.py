"""ckptctl check."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import JsonOpt, StoreOpt
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import CkptctlError, ExitStatus, UsageError

if TYPE_CHECKING:
    from ckptctl.app import App
    from ckptctl.output.checks import Report

STATUSES: Final = (
    "Exit status: 0 nothing stands in the way; 2 usage; 3 something could not be mended; 4 no such snapshot; "
    "5 something stands in the way, with --strict a warning too; 6 no such process; 10 store; 13 damaged. "
    "With --nagios: 0 ok, 1 warnings, 2 something stands in the way, 3 not known."
)
_UNKNOWN: Final = 3


def check(
    pid: Annotated[
        int | None, typer.Option("--pid", "-p", metavar="PID", help="The job with this root: could it be dumped?")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="SNAPSHOT", help="This snapshot: would it be restored here and now?"),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Look for the snapshot in this run only.")
    ] = None,
    new_pid_namespace: Annotated[
        bool, typer.Option("--new-pid-namespace", help="Judge the snapshot for a restore with this option.")
    ] = False,
    gpu_map: Annotated[
        list[str] | None,
        typer.Option("--gpu-map", metavar="OLD=NEW", help="Judge the snapshot for a restore with this; repeatable."),
    ] = None,
    only_problems: Annotated[bool, typer.Option("--only-problems", help="Show only what is amiss.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with status 5 for warnings too.")] = False,
    nagios: Annotated[
        bool, typer.Option("--nagios", help="One line and an exit status as monitoring systems want them.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Offer to mend what can be mended safely here: install criu, allow tracing."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --fix: mend without asking.")] = False,
    store: StoreOpt = None,
    json: JsonOpt = False,
) -> int:
    """Say whether it will work, before anything is touched.

    Without --pid or --snapshot: can this machine dump and restore? With --pid: can this job be dumped, with which
    options, and what would it take? With --snapshot: would it be restored here and now?
    """
    _refuse_contradictions(pid, snapshot, nagios=nagios, json=json)
    if snapshot is None and (run is not None or new_pid_namespace or gpu_map):
        raise UsageError("--run, --new-pid-namespace and --gpu-map go with --snapshot.", hint="Add --snapshot.")
    _refuse_silent_mending(fix=fix, yes=yes)
    question = _Question(pid, snapshot, run, new_pid_namespace, tuple(gpu_map or ()))
    began = time.monotonic()
    try:
        with session(Manner(json, quiet=True), store=store, repair=False) as app:
            done = question.ask(app)
            if fix:
                done = _mended(done, app, lambda: question.ask(app), asking=not yes)
    except CkptctlError as error:
        if not nagios:
            raise
        return _say_unknown(error)
    if nagios:
        return _say_nagios(done, time.monotonic() - began)
    return _say(done, json=json, only_problems=only_problems, strict=strict)


class _Question:
    """What is asked; it can be asked again after something was mended."""

    def __init__(
        self, pid: int | None, snapshot: str | None, run: str | None, new_pid_namespace: bool, gpu_map: tuple[str, ...]
    ) -> None:
        self._pid = pid
        self._snapshot = snapshot
        self._run = run
        self._new_pid_namespace = new_pid_namespace
        self._gpu_map = gpu_map

    def ask(self, app: App) -> Report:
        """The answer now. Raises NoSuchProcess, NothingMatched, ManifestDamaged, StoreUnsafe."""
        if self._pid is not None:
            return _of_job(app, self._pid)
        if self._snapshot is not None:
            return self._of_snapshot(app, self._snapshot)
        return _of_machine(app)

    def _of_snapshot(self, app: App, selector: str) -> Report:
        from ckptctl.cuda.gpu_map import parse_wish
        from ckptctl.output.checks import Scope, report
        from ckptctl.snapshot.readiness import RestoreQuestion, of_snapshot
        from ckptctl.store import manifest_json
        from ckptctl.store.layout import require_own
        from ckptctl.store.selectors import find

        found = find(app.store_if_any(), selector, self._run)
        if found.id is None:
            require_own(found.folder.path)
        manifest = manifest_json.read(found.folder.manifest)
        wishes = tuple(parse_wish(text) for text in self._gpu_map)
        question = RestoreQuestion(found.folder, manifest, new_pid_namespace=self._new_pid_namespace, gpu_map=wishes)
        return report(Scope.SNAPSHOT, manifest.id, of_snapshot(question, app.services))


def _of_machine(app: App) -> Report:
    import socket

    from ckptctl.output.checks import Scope, report
    from ckptctl.preflight import ready

    return report(Scope.MACHINE, socket.gethostname(), ready.findings(app.facts()))


def _of_job(app: App, pid: int) -> Report:
    from ckptctl.output.checks import Scope, report
    from ckptctl.snapshot.readiness import Target, of_job

    answer = of_job(pid, Target(app.settings.store, app.store_if_any()), app.services)
    return report(Scope.JOB, f"{answer.pid} ({answer.name})", answer.findings, answer)


def _mended(done: Report, app: App, again: Callable[[], Report], *, asking: bool) -> Report:
    """The report after what could be mended was; what was done stands in it. Raises CkptctlError."""
    import dataclasses

    from ckptctl.output import questions
    from ckptctl.preflight.fixes import offered

    mended = []
    for one in offered(done.findings, app.environment()):
        if asking and not questions.confirm(one.offer):
            continue
        one.act()
        mended.append(one.done)
    return dataclasses.replace(again(), mended=tuple(mended)) if mended else done


def _say(done: Report, *, json: bool, only_problems: bool, strict: bool) -> int:
    from ckptctl.output import checks

    amiss = not done.ready or (strict and done.warnings > 0)
    status = ExitStatus.PREFLIGHT_REFUSED if amiss else ExitStatus.DONE
    words = "" if json else checks.words(done, only_problems=only_problems)
    return emit(Manner(json), "check", checks.document(done), words, status)


def _say_nagios(done: Report, took_s: float) -> int:
    from ckptctl.output import checks, text

    line, status = checks.nagios(done, took_s)
    return status if text.say(line) else _UNKNOWN


def _say_unknown(error: CkptctlError) -> int:
    from ckptctl.output import checks, text

    text.say(checks.nagios_line("UNKNOWN", error.message))
    return _UNKNOWN


def _refuse_contradictions(pid: int | None, snapshot: str | None, *, nagios: bool, json: bool) -> None:
    both = "--pid and --snapshot" if pid is not None and snapshot is not None else None
    both = "--nagios and --json" if nagios and json else both
    if both:
        raise UsageError(f"{both} exclude each other.", hint="Give one of them.")


def _refuse_silent_mending(*, fix: bool, yes: bool) -> None:
    from ckptctl.output import questions

    if yes and not fix:
        raise UsageError("--yes goes with --fix.", hint="Add --fix, or leave --yes out.")
    if fix and not yes and not questions.can_ask():
        raise UsageError("--fix asks before it changes anything, and there is no terminal.", hint="Add --yes.")
