"""The options of looking after a job, which `run` and `watch` share, and what they amount to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ckptctl.cli.again import own_program
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import CriuOpt
from ckptctl.cli.session import Manner
from ckptctl.units import parse_duration

if TYPE_CHECKING:
    from ckptctl.config import Settings
    from ckptctl.images.levels import Compression
    from ckptctl.schedule.policy import Policy
    from ckptctl.snapshot.services import Services
    from ckptctl.store.layout import RunFolder, Store
    from ckptctl.store.manifest import Progress
    from ckptctl.store.retention import Retention
    from ckptctl.supervise.plan import Around, Care
    from ckptctl.supervise.recompressing import Recompression

DEFAULT_KEPT: Final = 10


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """When a snapshot is due."""

    every: Annotated[
        list[str] | None,
        typer.Option(
            "--every",
            metavar="INTERVAL",
            help="A snapshot each time: 500steps, 30m, 1epoch, or auto; repeatable, any that is due.",
        ),
    ] = None
    first_after: Annotated[
        str | None,
        typer.Option(
            "--first-after", metavar="DURATION", help="A first one this soon, which proves that the job can be saved."
        ),
    ] = None
    at_epoch_end: Annotated[bool, typer.Option("--at-epoch-end", help="One at the end of each epoch.")] = False
    on_best: Annotated[
        list[str] | None,
        typer.Option(
            "--on-best", metavar="METRIC[:min|max]", help="One when this metric is better than ever; repeatable."
        ),
    ] = None
    when_gpu_stable: Annotated[
        str | None,
        typer.Option(
            "--when-gpu-stable",
            metavar="SIZE/TIME/LIMIT",
            help="Wait until GPU memory varies by no more than SIZE over TIME (64MiB/10s/5m, or default).",
        ),
    ] = None
    min_interval: Annotated[
        str | None, typer.Option("--min-interval", metavar="DURATION", help="None sooner than this after the last.")
    ] = None
    max_overhead: Annotated[
        str | None,
        typer.Option("--max-overhead", metavar="PERCENT", help="The job stands still no more; intervals stretch."),
    ] = None
    mtbf: Annotated[
        str | None,
        typer.Option("--mtbf", metavar="DURATION", help="For --every auto: mean time between interruptions."),
    ] = None

    def policy(self) -> Policy:
        """The schedule. Raises BadSchedule."""
        from ckptctl.schedule.parse import PolicyWords, parse_policy

        return parse_policy(
            PolicyWords(
                every=tuple(self.every or ()),
                mtbf=self.mtbf,
                first_after=self.first_after,
                at_epoch_end=self.at_epoch_end,
                on_best=tuple(self.on_best or ()),
                when_gpu_stable=self.when_gpu_stable,
                min_interval=self.min_interval,
                max_overhead=self.max_overhead,
            )
        )


@dataclass(frozen=True, slots=True)
class PreemptionOptions:
    """What ends a run from outside."""

    on_signal: Annotated[
        list[str] | None,
        typer.Option(
            "--on-signal",
            metavar="SIGNAL=REACTION",
            help="For TERM, INT, HUP, USR1, ...: dump, dump-and-stop, stop, leave, pass or ignore; repeatable.",
        ),
    ] = None
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="DURATION", help="The time for a last snapshot and the end of the job."),
    ] = "120s"
    on_notice: Annotated[
        list[str] | None,
        typer.Option(
            "--on-notice",
            metavar="SOURCE",
            help="Where notices of preemption come from: aws, gcp, azure, file:PATH, command:WORDS; repeatable.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class AroundOptions:
    """What goes on around the snapshots of a run."""

    progress: Annotated[
        list[str] | None,
        typer.Option(
            "--progress",
            metavar="SOURCE",
            help="Where step, epoch and metrics come from: auto, status, log[:PATTERN], hf:DIR, lightning:DIR, "
            "file:PATH; repeatable, the first one that knows is believed.",
        ),
    ] = None
    hook_before: Annotated[
        str | None,
        typer.Option("--hook-before", metavar="COMMAND", help="Run before a snapshot; none is taken where it fails."),
    ] = None
    hook_after: Annotated[str | None, typer.Option("--hook-after", metavar="COMMAND", help="Run after a snapshot.")] = (
        None
    )
    hook_failure: Annotated[
        str | None, typer.Option("--hook-failure", metavar="COMMAND", help="Run when a snapshot failed.")
    ] = None
    hook_timeout: Annotated[
        str, typer.Option("--hook-timeout", metavar="DURATION", help="How long a hook may take before it is ended.")
    ] = "60s"
    notify: Annotated[
        list[str] | None,
        typer.Option("--notify", metavar="TARGET", help="Tell https://..., command:WORDS or apprise:URL; repeatable."),
    ] = None
    notify_on: Annotated[
        str | None, typer.Option("--notify-on", metavar="EVENTS", help="What is told: failure,preempted,... or all.")
    ] = None
    metrics_file: Annotated[
        Path | None, typer.Option("--metrics-file", metavar="PATH", help="Keep a text file for Prometheus up to date.")
    ] = None
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag for each snapshot; repeatable.")
    ] = None
    gpu_timeout: Annotated[
        str,
        typer.Option(
            "--gpu-timeout", metavar="DURATION", help="How long work that was given to a GPU may take to end."
        ),
    ] = "60s"
    criu_option: CriuOpt = None


@dataclass(frozen=True, slots=True)
class Words:
    """How a job is to be looked after, as it was typed; `settings` are those that options have a part in."""

    schedule: ScheduleOptions
    keep: KeepOptions
    preemption: PreemptionOptions
    around: AroundOptions
    settings: Settings

    def care_for(
        self, run: RunFolder, store: Store, logs: tuple[Path, ...], services: Services, *, watched: bool = False
    ) -> Care:
        """How this run is looked after; the job's output goes to `logs`. Raises UsageError, NotifyMissing.

        `watched`: the job was started by others, and does not end with ckptctl.
        """
        from ckptctl.store.names import check_tag
        from ckptctl.supervise.plan import Care
        from ckptctl.supervise.reactions import DEFAULT, WATCHED, parse_reactions
        from ckptctl.supervise.snapshots import Manner

        around, policy, retention = self.around, self.schedule.policy(), _or_default(self.keep.retention())
        tags = tuple(check_tag(text) for text in around.tag or ())
        manner = Manner(
            retention, tags, tuple(around.criu_option or ()), parse_duration(around.gpu_timeout), self.settings.way
        )
        return Care(
            store=store,
            run=run,
            policy=policy,
            manner=manner,
            reactions=parse_reactions(tuple(self.preemption.on_signal or ()), WATCHED if watched else DEFAULT),
            grace_s=parse_duration(self.preemption.grace),
            open_progress=_progress(run, tuple(around.progress or ()), logs, services),
            around=_around(run, around, self.preemption, services),
            metric=_metric(policy, retention),
            recompression=_recompression(self.settings.recompress),
        )


def _progress(
    run: RunFolder, words: tuple[str, ...], logs: tuple[Path, ...], services: Services
) -> Callable[[Mapping[Path, int]], Callable[[], Progress]]:
    from ckptctl.progress.parse import Places, parse_sources
    from ckptctl.progress.reader import ProgressReader

    parse_sources(words, Places(run.job_status, logs))  # to refuse what is wrong before anything is started

    def open_progress(begins: Mapping[Path, int]) -> Callable[[], Progress]:
        return ProgressReader(parse_sources(words, Places(run.job_status, logs, begins)), services.reporter).read

    return open_progress


def _around(run: RunFolder, words: AroundOptions, preemption: PreemptionOptions, services: Services) -> Around:
    from ckptctl.supervise.hooks import HookCommands, Hooks
    from ckptctl.supervise.limited import split_words
    from ckptctl.supervise.notices.parse import parse_notice_source
    from ckptctl.supervise.notices.watch import NoticeWatch
    from ckptctl.supervise.notify import DEFAULT_EVENTS, Notifier, parse_events
    from ckptctl.supervise.notify_targets import parse_notify_targets
    from ckptctl.supervise.plan import Around
    from ckptctl.supervise.prometheus import MetricsFile

    def hook(option: str, line: str | None) -> tuple[str, ...]:
        return () if line is None else split_words(option, line)

    commands = HookCommands(
        before=hook("--hook-before", words.hook_before),
        after=hook("--hook-after", words.hook_after),
        failure=hook("--hook-failure", words.hook_failure),
    )
    targets = [target for text in words.notify or () for target in parse_notify_targets(text)]
    sources = [parse_notice_source(text, time.time) for text in preemption.on_notice or ()]
    events = DEFAULT_EVENTS if words.notify_on is None else parse_events(words.notify_on)
    return Around(
        hooks=Hooks(commands, log=run.hooks_log, timeout_s=parse_duration(words.hook_timeout)),
        notices=NoticeWatch(sources, services.reporter),
        notifier=Notifier(targets, services.reporter, events=events),
        metrics=None if words.metrics_file is None else MetricsFile(words.metrics_file, services.reporter),
    )


def _recompression(compression: Compression) -> Recompression | None:
    from ckptctl.images.levels import Compression
    from ckptctl.supervise.recompressing import Recompression

    return None if compression is Compression.OFF else Recompression(own_program(), compression)


def _or_default(asked: Retention) -> Retention:
    """What takes snapshots by itself must not fill the disk by itself: where nothing is said the newest stay."""
    return replace(asked, keep_last=DEFAULT_KEPT) if asked.is_empty else asked


def _metric(policy: Policy, retention: Retention) -> str:
    """The metric that is worth a curve: the one that decides which snapshots are the best, else the usual one."""
    if retention.best_by is not None:
        return retention.best_by.metric
    return policy.on_best[0].metric if policy.on_best else "loss"


def say_end(manner: Manner, command: str, run: RunFolder, store: Store, services: Services, status: int) -> int:
    """With --json, how the run stands now, as `ckptctl status` says it; the status is what it was."""
    if manner.json:
        from ckptctl.output import document, text
        from ckptctl.supervise.overview import overview

        (found,) = overview(store, run.name, services.owner).runs
        text.say(document.success(command, found, status))
    return status
