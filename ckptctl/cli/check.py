"""ckptctl check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.options import (
    ROLL_BACK,
    FilesOpt,
    GpuMapOpt,
    JsonOpt,
    NewPidNamespaceOpt,
    StoreOpt,
    parse_files,
    parse_pid,
)
from ckptctl.cli.session import Manner, emit, session
from ckptctl.errors import CkptctlError, ExitStatus, UsageError

if TYPE_CHECKING:
    from ckptctl.app import App
    from ckptctl.output.checks import Report

STATUSES: Final = (
    "Exit status: 0 nothing stands in the way; 2 usage; 3 something could not be mended; 4 no such snapshot; "
    "5 something stands in the way, with --strict a warning too; 6 no such process; 10 store; 13 damaged; "
    "16 nothing was heard in time. "
    "With --nagios: 0 ok, 1 warnings, 2 something stands in the way, 3 not known."
)
_UNKNOWN: Final = 3
# A snapshot has thousands of files, perhaps on a slow server; their sizes are asked, and those of the job's own files.
_SNAPSHOT_LIMIT_S: Final = 20.0


def check(
    context: typer.Context,
    pid: Annotated[
        str | None, typer.Option("--pid", "-p", metavar="PID", help="The job with this root: could it be dumped?")
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="SNAPSHOT", help="This snapshot: would it be restored here and now?"),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Look for the snapshot in this run only.")
    ] = None,
    new_pid_namespace: NewPidNamespaceOpt = False,
    files: FilesOpt = ROLL_BACK,
    gpu_map: GpuMapOpt = None,
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
    options, and what would it take? With --snapshot: would it be restored here and now, with the options of a restore
    that are given?
    """
    _refuse_words(context.args)
    _refuse_contradictions(pid, snapshot, nagios=nagios, json=json)
    manner = _Manner(run, files, tuple(gpu_map or ()), new_pid_namespace)
    if snapshot is None and manner != _Manner():
        options = "--run, --files, --new-pid-namespace and --gpu-map"
        raise UsageError(f"{options} go with --snapshot.", hint="Add --snapshot.")
    _refuse_silent_mending(fix=fix, yes=yes)
    question = _Question(None if pid is None else parse_pid(pid), snapshot, manner)
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


@dataclass(frozen=True, slots=True)
class _Manner:
    """The restore that is asked about: from which run, and in what way."""

    run: str | None = None
    files: str = ROLL_BACK
    gpu_map: tuple[str, ...] = ()
    new_pid_namespace: bool = False


class _Question:
    """What is asked; it can be asked again after something was mended."""

    def __init__(self, pid: int | None, snapshot: str | None, manner: _Manner) -> None:
        self._pid = pid
        self._snapshot = snapshot
        self._manner = manner

    def ask(self, app: App) -> Report:
        """The answer now. Raises NoSuchProcess, NothingMatched, ManifestDamaged, StoreUnsafe, NothingHeard."""
        if self._pid is not None:
            return _of_job(app, self._pid)
        if self._snapshot is not None:
            return _of_snapshot(app, self._snapshot, self._manner)
        return _of_machine(app)


def _of_snapshot(app: App, selector: str, manner: _Manner) -> Report:
    from ckptctl.cuda.gpu_map import parse_wish
    from ckptctl.output.checks import Scope, report
    from ckptctl.preflight.asked import within
    from ckptctl.snapshot.readiness import RestoreQuestion, of_snapshot
    from ckptctl.store import manifest_json
    from ckptctl.store.layout import require_own
    from ckptctl.store.selectors import find

    mode, wishes = parse_files(manner.files), tuple(parse_wish(text) for text in manner.gpu_map)

    def judge() -> Report:
        found = find(app.store_if_any(), selector, manner.run)
        if found.id is None:
            require_own(found.folder.path)
        manifest = manifest_json.read(found.folder.manifest)
        question = RestoreQuestion(found.folder, manifest, mode, manner.new_pid_namespace, wishes)
        return report(Scope.SNAPSHOT, manifest.id, of_snapshot(question, app.asking))

    return within(_SNAPSHOT_LIMIT_S, f"the snapshot {selector}", judge)


def _of_machine(app: App) -> Report:
    import socket

    from ckptctl.output.checks import Scope, report
    from ckptctl.preflight import ready

    return report(Scope.MACHINE, socket.gethostname(), ready.findings(app.facts()))


def _of_job(app: App, pid: int) -> Report:
    from ckptctl.app import ASK_LIMIT_S
    from ckptctl.output.checks import Scope, report
    from ckptctl.snapshot.readiness import Target, of_job

    answer = of_job(pid, Target(app.settings.store, app.store_if_any), app.asking, ASK_LIMIT_S)
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


def _refuse_words(words: list[str]) -> None:
    """A bare word is what a newcomer types: which of the two it is, is said."""
    if words:
        option = "--pid" if words[0].isdecimal() else "--snapshot"
        raise UsageError(f"`check {words[0]}`: an option is missing.", hint=f"ckptctl check {option} {words[0]}")


def _refuse_contradictions(pid: str | None, snapshot: str | None, *, nagios: bool, json: bool) -> None:
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
